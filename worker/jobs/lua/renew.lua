-- A sign of life of an attempt: holder, lease.
if get('state') == 'running' and get('holder') == ARGV[3] then
  redis.call('ZADD', prefix .. ':running', 'XX', seconds(now() + tonumber(ARGV[4])), id)
end
