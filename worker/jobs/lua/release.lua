-- An attempt was broken off, its message goes back to the queue: holder, what happened, whether it counts, keep -> state.
local state = get('state')
if state == 'running' and get('holder') == ARGV[3] then
  note(ARGV[4])
  if ARGV[5] ~= '1' then
    redis.call('HINCRBY', job, 'attempts', -1)
  end
  wait(ARGV[6])
end
return get('state') or 'gone'
