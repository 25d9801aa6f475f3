-- An attempt failed, another may not: holder, what happened, whether it counts, pause, most attempts, keep, result key,
-- its value, its ttl -> 'later', or 'dead' if its dead letter is to be written; another state if it is not this attempt's
-- turn any more.
local state = get('state')
if state ~= 'running' or get('holder') ~= ARGV[3] then
  return state or 'gone'
end
note(ARGV[4])
if ARGV[5] ~= '1' then
  redis.call('HINCRBY', job, 'attempts', -1)
end
if tonumber(get('attempts')) >= tonumber(ARGV[7]) then
  redis.call('HSET', job, 'condemned', 1)
  return 'dead'
end
enter('later', 'later', now() + tonumber(ARGV[6]), ARGV[8])
store(ARGV[9], ARGV[10], ARGV[11])
return 'later'
