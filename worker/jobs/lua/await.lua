-- A film's work goes on in parts: holder, step, frames, list, keep, then digest and message of each part -> nothing if it is
-- not this attempt's turn any more; else how many parts there are to do. A part that is done already, with the same
-- message, stays so. What is left is recorded as any job, to be sent; the film is in no queue until all have ended.
local list, keep = ARGV[6], ARGV[7]
if get('state') ~= 'running' or get('holder') ~= ARGV[3] then
  return false
end
local waiting, time = set('waiting:' .. list), seconds(now())
local parts, done = (#ARGV - 7) / 2, 0
for number = 0, parts - 1 do
  local digest, message = ARGV[8 + 2 * number], ARGV[9 + 2 * number]
  local part = id .. '/' .. ARGV[4] .. '/' .. number
  local record = own(prefix .. ':job:' .. part, 'hash')
  if redis.call('HGET', record, 'state') == 'done' and redis.call('HGET', record, 'digest') == digest then
    done = done + 1
  else
    redis.call('DEL', record)
    redis.call('HSET', record, 'digest', digest, 'message', message, 'list', list, 'tries', 0, 'attempts', 0,
      'submitted', time, 'sent', time, 'state', 'waiting')
    redis.call('ZADD', waiting, time, part)
  end
  redis.call('EXPIRE', record, keep)
end
redis.call('EXPIRE', waiting, keep)
note('its parts are in work')
redis.call('HSET', job, 'step', ARGV[4], 'parts', parts, 'parts:ended', done, 'parts:failed', 0, 'parts:before', done,
  'parts:since', time, 'frames', ARGV[5], 'attempts', 0)
enter('parts', 'parts', now(), keep)
if done == parts then
  enter('later', 'later', now(), keep)
end
return parts - done
