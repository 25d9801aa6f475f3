-- The bytes of an image, kept beside a job that is about to be recorded: bytes, seconds until the record, most of all
-- jobs together -> 'kept', 'known' (there is a record: that job's own stay), or 'full'.
local data, keep, most = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
if get('digest') then
  return 'known'
end
drop_upload()
local uploads, total = set('uploads'), own(prefix .. ':uploads:bytes', 'string')
for _, member in ipairs(redis.call('ZRANGE', uploads, '-inf', seconds(now()), 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('ZREM', uploads, member) -- it has expired
  redis.call('DECRBY', total, string.match(member, '^%d+') or 0)
end
if redis.call('ZCARD', uploads) == 0 then
  redis.call('SET', total, 0)
end
if tonumber(redis.call('GET', total)) + #data > most then
  return 'full'
end
redis.call('SET', upload, data, 'EX', keep)
redis.call('ZADD', uploads, seconds(now() + keep), (uploaded()))
redis.call('INCRBY', total, #data)
for _, key in ipairs({uploads, total}) do -- longer than any upload
  redis.call('EXPIRE', key, 400 * 86400)
end
return 'kept'
