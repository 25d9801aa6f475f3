-- What all steps of the ledger share. ARGV[1] is the key prefix, ARGV[2] the job's id; a step's own follow.
local prefix, id = ARGV[1], ARGV[2]
local job = prefix .. ':job:' .. id
-- States that nothing changes any more. A dead job has ended, too, but a person may put it back.
local ENDED = {done = true, failed = true, revoked = true}

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

-- Take the job out of the set of its state.
local function leave()
  local list = get('list')
  if list then
    redis.call('ZREM', prefix .. ':waiting:' .. list, id)
  end
  for _, set in ipairs({'running', 'later', 'dead'}) do
    redis.call('ZREM', prefix .. ':' .. set, id)
  end
end

-- Put it into the set of its new state; no key stays for ever.
local function enter(state, set, score, keep)
  leave()
  redis.call('HSET', job, 'state', state)
  redis.call('ZADD', prefix .. ':' .. set, seconds(score), id)
  redis.call('EXPIRE', prefix .. ':' .. set, keep)
  redis.call('EXPIRE', job, keep)
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

local function store(key, value, ttl)
  redis.call('SET', key, value, 'EX', ttl)
  redis.call('PUBLISH', key, value)
end
