-- The outcome, with the result in one step: new state, result key, its value, its ttl, keep of the dead -> whether it was
-- written. The first outcome stands. Tasks without a record keep their results as anywhere; one that was cancelled gets a
-- record, so that its message is not worked on when it comes.
local state = get('state')
if state and (ENDED[state] or state == 'dead') then
  return 0
end
store(ARGV[4], ARGV[5], ARGV[6])
if state and ARGV[3] == 'dead' then
  enter('dead', 'dead', now(), ARGV[7])
  redis.call('HSET', job, 'result', ARGV[4])
elseif state or ARGV[3] == 'revoked' then
  note(ARGV[3])
  leave()
  redis.call('HSET', job, 'state', ARGV[3], 'ended', seconds(now()))
  if ARGV[3] == 'done' then
    redis.call('HDEL', job, 'message')
  else -- somebody may want to have it done again
    redis.call('HSET', job, 'result', ARGV[4])
  end
  drop_upload()
  redis.call('EXPIRE', job, ARGV[6])
end
return 1
