-- A person removes a dead job -> whether it was one.
if get('state') ~= 'dead' then
  redis.call('ZREM', set('dead'), id) -- a record that has expired
  return 0
end
leave()
drop_upload()
redis.call('DEL', job)
return 1
