-- A sign of life of an attempt: holder, lease.
if get('state') == 'running' and get('holder') == ARGV[3] then
  redis.call('ZADD', set('running'), seconds(now() + tonumber(ARGV[4])), id)
end
