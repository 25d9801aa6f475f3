-- A film's work goes on in parts: holder, the film's message, step, frames, list, keep, then digest and message of each part
-- -> whether it does; not if it is not this attempt's turn any more. A part that is done already, with the same message,
-- stays so. The others are recorded as any job, to be sent; the film is in no queue until all have ended.
local part_of_film, list, keep = id .. '/' .. ARGV[5] .. '/', ARGV[7], ARGV[8]
if get('state') ~= 'running' or get('holder') ~= ARGV[3] then
  return 0
end
local waiting, time = set('waiting:' .. list), seconds(now())
local parts, done = (#ARGV - 8) / 2, 0
for number = 0, parts - 1 do
  local digest, message = ARGV[9 + 2 * number], ARGV[10 + 2 * number]
  local part = part_of_film .. number
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
note('its work goes on in parts')
redis.call('HSET', job, 'message', ARGV[4], 'step', ARGV[5], 'frames', ARGV[6], 'parts', parts, 'parts:ended', done,
  'parts:before', done, 'parts:failed', 0, 'parts:since', time, 'attempts', 0)
if done == parts then
  enter('later', 'later', now(), keep)
else
  enter('parts', 'parts', now(), keep)
end
return 1
