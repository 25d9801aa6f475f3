-- Before a job is sent: digest, message, list, keep -> 'new', 'same' or 'other' (the id is taken by another payload).
local digest, message, list, keep = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local known = get('digest')
if known then
  return known == digest and 'same' or 'other'
end
redis.call('HSET', job, 'digest', digest, 'message', message, 'list', list, 'tries', 0, 'attempts', 0,
  'submitted', seconds(now()))
wait(keep)
return 'new'
