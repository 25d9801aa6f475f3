-- A job that could not be sent was never there, unless a worker has seen it all the same.
if get('state') == 'waiting' and get('tries') == '0' then
  leave()
  drop_upload()
  redis.call('DEL', job)
end
