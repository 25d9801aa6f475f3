-- A refused message bears this id: result key, its value, its ttl -> whether it was written. Nothing is, if there is a job
-- of this id, whose message is another one, or if something is stored: the first outcome stands.
if get('state') or redis.call('EXISTS', ARGV[3]) == 1 then
  return 0
end
store(ARGV[3], ARGV[4], ARGV[5])
return 1
