-- A film whose parts have all ended goes back to its queue: keep -> its message, or nothing if it is not its time. The
-- reconciler does the same a little later.
local due = get('state') == 'later' and get('step') and redis.call('ZSCORE', set('later'), id)
if not due or tonumber(due) > now() then
  return false
end
wait(ARGV[3])
return get('message')
