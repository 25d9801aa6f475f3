-- The outcome, with the result in one step: new state, result key, its value, its ttl, keep of the dead -> whether it was
-- written. The first outcome stands. Tasks without a record keep their results as anywhere; one that was cancelled gets a
-- record, so that its message is not worked on when it comes. A part has no dead letter of its own; the last one to end
-- makes its film due.
local outcome = film and ARGV[3] == 'dead' and 'failed' or ARGV[3]
local state = get('state')
if state and (ENDED[state] or state == 'dead') then
  return 0
end
store(ARGV[4], ARGV[5], ARGV[6])
if state and outcome == 'dead' then
  enter('dead', 'dead', now(), ARGV[7])
  redis.call('HSET', job, 'result', ARGV[4])
elseif state or outcome == 'revoked' then
  note(outcome)
  leave()
  redis.call('HSET', job, 'state', outcome, 'ended', seconds(now()))
  if outcome == 'done' then
    redis.call('HDEL', job, 'message')
  else -- somebody may want to have it done again
    redis.call('HSET', job, 'result', ARGV[4])
  end
  drop_upload()
  redis.call('EXPIRE', job, ARGV[6])
  if film and awaited() then
    id, job = film, own(prefix .. ':job:' .. film, 'hash')
    redis.call('HINCRBY', job, 'parts:failed', outcome == 'done' and 0 or 1)
    if redis.call('HINCRBY', job, 'parts:ended', 1) >= tonumber(get('parts')) then
      enter('later', 'later', now(), redis.call('TTL', job))
    end
  end
end
return 1
