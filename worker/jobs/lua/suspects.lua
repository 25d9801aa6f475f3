-- What the reconciler must look at: token, its ttl in ms, patience in seconds, most of each kind, keep of the dead,
-- lists ... -> {ids of expired leases, of pauses that are over, {list, ids that were taken from it and never begun}...}, or nothing if
-- another one holds the lock. A list is first in, first out: what was sent before its head has left it.
local token, patience, most, keep = ARGV[2], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local lock = own(prefix .. ':reconciler', 'string')
if not redis.call('SET', lock, token, 'NX', 'PX', ARGV[3]) then
  if redis.call('GET', lock) ~= token then
    return false
  end
  redis.call('PEXPIRE', lock, ARGV[3])
end
local time = now()
local function due(name, before)
  return redis.call('ZRANGE', set(name), '-inf', '(' .. seconds(before), 'BYSCORE', 'LIMIT', 0, most)
end
for _, letter in ipairs(due('dead', time - keep)) do -- its record has expired, and the set outlives it
  redis.call('ZREM', set('dead'), letter)
end
local found = {due('running', time), due('later', time)}
for index = 7, #ARGV do
  local list, before = ARGV[index], time - patience
  local head = redis.pcall('LINDEX', list, -1)
  if head then -- if it is an error, there is no list: nobody knows what has left it
    local read, message = pcall(cjson.decode, head)
    local headers = read and type(message) == 'table' and message['headers']
    local named = type(headers) == 'table' and headers['id']
    local sent = type(named) == 'string' and redis.call('HGET', own(prefix .. ':job:' .. named, 'hash'), 'sent')
    sent = sent and tonumber(sent) or 0
    before = sent < before and sent or before
  end
  found[#found + 1] = due('waiting:' .. list, before)
end
return found
