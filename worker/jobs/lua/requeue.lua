-- A person puts a dead job back: keep -> its message, or nothing if it is not dead.
if get('state') ~= 'dead' then
  return false
end
redis.call('HSET', job, 'attempts', 0)
redis.call('HDEL', job, 'condemned')
local result = get('result')
if result then
  redis.call('DEL', result)
  redis.call('HDEL', job, 'result')
end
wait(ARGV[3])
return get('message')
