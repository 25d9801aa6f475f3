-- The reconciler takes a job to send it again: its token, the set it was seen in, keep -> the message, or nothing if
-- somebody else has acted. The token is the fence: whoever has lost the lock can do nothing any more.
local token, seen = ARGV[3], ARGV[4]
if redis.call('GET', own(prefix .. ':reconciler', 'string')) ~= token then
  return false
end
local state = get('state')
if home() ~= seen then -- its record has expired, or it is in another set by now
  redis.call('ZREM', set(seen), id)
  return false
end
if state ~= 'waiting' then
  local due = redis.call('ZSCORE', set(state), id)
  if due and tonumber(due) > now() then
    return false
  end
end
if state == 'running' then
  -- Who was lost twice may be what kills workers, or merely have been beside it twice. Of these, one is tried at a time,
  -- so that the guilty one does not take the others with it to the last attempt.
  if tonumber(get('attempts')) >= 2 then
    local lock = own(prefix .. ':quarantine', 'string')
    local other = redis.call('GET', lock)
    local busy = other and other ~= id and redis.call('HGET', own(prefix .. ':job:' .. other, 'hash'), 'state')
    if busy == 'waiting' or busy == 'running' then
      return false
    end
    redis.call('SET', lock, id, 'EX', 60)
  end
  note('lost: its worker gave no more sign of life')
end
redis.call('HINCRBY', job, 'resent', 1)
wait(ARGV[5])
return get('message')
