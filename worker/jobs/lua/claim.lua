-- The reconciler takes a job to send it again: its token, the state it was seen in, keep -> the message, or nothing if
-- somebody else has acted. The token is the fence: whoever has lost the lock can do nothing any more.
local token, seen = ARGV[3], ARGV[4]
if redis.call('GET', prefix .. ':reconciler') ~= token then
  return false
end
local state = get('state')
if not state then -- its record has expired
  redis.call('ZREM', prefix .. ':' .. seen, id)
  return false
end
if state ~= seen then
  return false
end
if state ~= 'waiting' then
  local due = redis.call('ZSCORE', prefix .. ':' .. state, id)
  if due and tonumber(due) > now() then
    return false
  end
end
if state == 'running' then
  -- Who was lost twice may be what kills workers, or merely have been beside it twice. Of these, one is tried at a time,
  -- so that the guilty one does not take the others with it to the last attempt.
  if tonumber(get('attempts')) >= 2 then
    local lock = prefix .. ':quarantine'
    local other = redis.call('GET', lock)
    local busy = other and other ~= id and redis.call('HGET', prefix .. ':job:' .. other, 'state')
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
