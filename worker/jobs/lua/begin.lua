-- Before work: digest, message, list, keep, holder, attempt, most attempts, lease, result key, its value, its ttl ->
-- verdict, attempts, seconds since submission, and of a film what its parts have done last. An attempt counts before it is
-- made. One that may not be made any more is held all the same, until the dead letter is written: should its holder die
-- before that, another one finds the job.
local digest, message, list, keep = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local holder, attempt, most, lease = ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local state = get('state')
if film and not (state and awaited()) then -- the film has ended, or this is no part of it
  if not ENDED[state or ''] then
    leave()
    redis.call('DEL', job)
  end
  return {'superfluous', 0, '0'}
elseif not state then -- from a client that keeps no record
  redis.call('HSET', job, 'digest', digest, 'message', message, 'list', list, 'tries', 0, 'attempts', 0,
    'submitted', seconds(now()))
elseif get('digest') and get('digest') ~= digest then -- not this job, whatever it calls itself
  return {'other', get('attempts'), '0'}
elseif ENDED[state] or state == 'dead' or state == 'parts' then
  return {state == 'dead' and 'buried' or state, get('attempts'), '0'}
elseif state == 'running' then
  if get('holder') == holder then -- asked again, because the answer got lost
    return {get('condemned') and 'dead' or 'begun', get('attempts'), seconds(now() - tonumber(get('submitted'))),
      get('step') or ''}
  end
  local held = redis.call('ZSCORE', set('running'), id)
  if held and tonumber(held) > now() then
    return {state, get('attempts'), '0'}
  end
  note('lost: its worker gave no more sign of life')
end
if tonumber(get('attempts')) >= most then
  redis.call('HSET', job, 'holder', holder, 'condemned', 1)
  enter('running', 'running', now() + lease, keep)
  return {'dead', get('attempts'), '0'}
end
local attempts = redis.call('HINCRBY', job, 'attempts', 1)
local try = redis.call('HINCRBY', job, 'tries', 1)
redis.call('HSET', job, 'holder', holder, 'attempt:' .. try, seconds(now()) .. ' ' .. attempt)
enter('running', 'running', now() + lease, keep)
redis.call('SET', ARGV[11], ARGV[12], 'EX', ARGV[13])
return {'begun', attempts, seconds(now() - tonumber(get('submitted'))), get('step') or ''}
