-- What all steps of the ledger share. ARGV[1] is the key prefix, ARGV[2] the job's id; a step's own follow.
local prefix, id = ARGV[1], ARGV[2]

-- A key of ours. What is there of another type is not from us, and would stop every step: it is removed.
local function own(key, type)
  local found = redis.call('TYPE', key)['ok']
  if found ~= type and found ~= 'none' then
    redis.call('DEL', key)
  end
  return key
end

local function set(name)
  return own(prefix .. ':' .. name, 'zset')
end

local job = own(prefix .. ':job:' .. id, 'hash')
-- Of a part of a film's work, such as film/look/3: its film, and what is done with the segment.
local film, step = string.match(id, '^([^/]+)/(%a+)/%d+$')
-- States that nothing changes any more. A dead job has ended, too, but a person may put it back.
local ENDED = {done = true, failed = true, revoked = true}

-- What a client has sent with the job. Not every user may touch it where the rights are older than it is.
local upload = prefix .. ':upload:' .. id

-- What stands for it among all uploads, which tells no ids, and its bytes; nothing if there is none.
local function uploaded()
  local size = redis.pcall('STRLEN', upload)
  if type(size) == 'number' and size > 0 then
    return size .. ':' .. redis.sha1hex(id), size
  end
end

local function drop_upload()
  local member, size = uploaded()
  if member then
    redis.pcall('DEL', upload)
    if redis.pcall('ZREM', prefix .. ':uploads', member) == 1 then
      redis.pcall('DECRBY', prefix .. ':uploads:bytes', size)
    end
  end
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local function seconds(time)
  return string.format('%.6f', time)
end

local function get(field)
  return redis.call('HGET', job, field)
end

-- The name of the set that the job is in, if it is in one.
local function home()
  local state = get('state')
  local homes = {waiting = 'waiting:' .. (get('list') or ''), running = state, later = state, dead = state, parts = state}
  return homes[state]
end

local function leave()
  local name = home()
  if name then
    redis.call('ZREM', set(name), id)
  end
end

-- Put it into the set of its new state; no key stays for ever.
local function enter(state, name, score, keep)
  leave()
  redis.call('HSET', job, 'state', state)
  local entered = set(name)
  redis.call('ZADD', entered, seconds(score), id)
  redis.call('EXPIRE', entered, keep)
  redis.call('EXPIRE', job, keep)
  local member = uploaded()
  if member then
    redis.pcall('EXPIRE', upload, keep)
    redis.pcall('ZADD', prefix .. ':uploads', 'XX', seconds(now() + keep), member)
  end
end

local function wait(keep)
  redis.call('HSET', job, 'sent', seconds(now()))
  enter('waiting', 'waiting:' .. get('list'), now(), keep)
end

-- Note how the attempt that was in work has ended; what was noted first stands.
local function note(what)
  local field = 'attempt:' .. (get('tries') or '0') .. ':end'
  if not get(field) then
    redis.call('HSET', job, field, seconds(now()) .. ' ' .. what)
  end
end

-- Whether the film of this part waits for it.
local function awaited()
  local record = own(prefix .. ':job:' .. film, 'hash')
  return redis.call('HGET', record, 'state') == 'parts' and redis.call('HGET', record, 'step') == step
end

local function store(key, value, ttl)
  redis.call('SET', key, value, 'EX', ttl)
  redis.call('PUBLISH', key, value)
end
