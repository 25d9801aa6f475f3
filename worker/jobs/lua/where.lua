-- Where a job is -> state, list, sent, ended, attempts, the last attempt, how it ended, when the next one is due, how many
-- jobs wait before it, whether a worker takes jobs from its queue; of a film its step, parts, how many of them have ended,
-- had ended before, have failed, since when, frames, and the time. What is not known is empty.
local state, list, try = get('state') or '', get('list') or '', get('tries') or '0'
local queue, priority = string.match(list, '^(.*)\6\22(%d)$')
queue, priority = queue or list, tonumber(priority or 0)
local due = state == 'later' and redis.call('ZSCORE', set('later'), id)
local before = ''
if state == 'waiting' then
  before = 0
  for level = 0, priority do
    local waiting = set('waiting:' .. queue .. (level > 0 and '\6\22' .. level or ''))
    before = before + redis.call('ZCOUNT', waiting, '-inf', level < priority and '+inf' or '(' .. get('sent'))
  end
end
return {state, list, get('sent') or '', get('ended') or '', get('attempts') or '', get('attempt:' .. try) or '',
  get('attempt:' .. try .. ':end') or '', due or '', tostring(before),
  tostring(redis.call('EXISTS', prefix .. ':serves:' .. queue)), get('step') or '', get('parts') or '',
  get('parts:ended') or '', get('parts:before') or '', get('parts:failed') or '', get('parts:since') or '',
  get('frames') or '', seconds(now())}
