-- A job that has ended without a result is put back: keep -> its message, or nothing if it is none or its message is gone.
-- Of the dead, only those may do that who may change their list.
local state = get('state')
if not (state == 'dead' or state == 'failed' or state == 'revoked') or not get('message') then
  return false
end
leave()
redis.call('HSET', job, 'attempts', 0)
redis.call('HDEL', job, 'condemned', 'ended', 'step') -- a film is planned anew; its parts that are done stay so
local result = get('result')
if result then
  redis.call('DEL', result)
  redis.call('HDEL', job, 'result')
end
wait(ARGV[3])
return get('message')
