-- One decision about one or more keys, all or nothing. Times are microseconds of this server's clock.
-- ARGV: what to do (take, lease), then for each key: kind, pace, most, cost, owed.
--   b  a bucket: pace is what drains in a microsecond, most is its size
--   f  a fixed window, s a sliding one: pace is its length, most is the limit
-- `owed` was admitted before anybody asked (or is given back: negative): it is counted whatever is left.
-- `take` needs the whole cost of all keys; `lease` takes what there is of each, and never more than half of it.
-- Answer: the first key that refused (0: none), then for each key: granted, remaining, reset, retry, wait.
-- `retry` of a take is when its cost is there, of a lease when one is. `wait` is how long a bucket takes to drain what was before, or how
-- long a window lasts.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local SLACK = 0.000001

local function bucket(held, rate, most)
  local level, at = string.match(held, '^b (%S+) (%S+)$')
  level, at = tonumber(level) or 0, tonumber(at) or now
  level = math.max(0, level - math.max(0, now - at) * rate)
  local b = {before = level}
  function b.left() return math.floor(most - level + SLACK) end
  function b.add(n) level = math.max(0, level + n) end
  function b.reset() return math.ceil(level / rate) end
  function b.retry(cost) return math.ceil(math.max(0, level + math.min(cost, most) - most) / rate) end
  function b.wait() return math.ceil(b.before / rate) end
  function b.text() return level > 0 and string.format('b %.17g %.0f', level, now) end
  b.ttl = b.reset
  return b
end

local function fixed(held, span, most)
  local index = math.floor(now / span)
  local at, count, length = string.match(held, '^f (%S+) (%S+) (%S+)$')
  count = tonumber(at) == index and tonumber(length) == span and tonumber(count) or 0
  local f = {}
  function f.left() return most - count end
  function f.add(n) count = math.max(0, count + n) end
  function f.ttl() return (index + 1) * span - now end
  function f.reset() return count > 0 and f.ttl() or 0 end
  f.retry = f.ttl
  f.wait = f.ttl
  function f.text() return count > 0 and string.format('f %.0f %.0f %.0f', index, count, span) end
  return f
end

local function sliding(held, span, most)
  local index = math.floor(now / span)
  local at, count, before, length = string.match(held, '^s (%S+) (%S+) (%S+) (%S+)$')
  at, count, before = tonumber(at), tonumber(count) or 0, tonumber(before) or 0
  if tonumber(length) ~= span or at ~= index then
    before = tonumber(length) == span and at == index - 1 and count or 0
    count = 0
  end
  local phase = now - index * span
  local weight = 1 - phase / span
  local s = {}
  function s.left() return math.floor(most - count - before * weight + SLACK) end
  function s.add(n) count = math.max(0, count + n) end
  function s.ttl() return 2 * span - phase end
  function s.reset()
    return count > 0 and s.ttl() or before > 0 and span - phase or 0
  end
  function s.retry(cost)
    cost = math.min(cost, most)
    if count + cost <= most and before > 0 then
      return math.ceil(math.max(0, weight - (most - count - cost) / before) * span)
    end
    return math.ceil(span - phase + math.max(0, 1 - (most - cost) / math.max(1, count)) * span)
  end
  function s.wait() return span - phase end
  function s.text() return count + before > 0 and string.format('s %.0f %.0f %.0f %.0f', index, count, before, span) end
  return s
end

local kinds = {b = bucket, f = fixed, s = sliding}
local whole = ARGV[1] == 'take'
local asked, refused = {}, 0
for i, key in ipairs(KEYS) do
  local a = 5 * i - 3
  local state = kinds[ARGV[a]](redis.call('GET', key) or '', tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]))
  local cost, owed = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
  if owed ~= 0 then state.add(owed) end
  local left = math.max(0, state.left())
  local grant = cost <= left and cost or 0
  if not whole then grant = math.min(cost, math.max(math.min(left, 1), math.floor(left / 2))) end
  if grant < cost and refused == 0 then refused = i end
  asked[i] = {state = state, cost = cost, owed = owed, grant = grant}
end

local answer = {refused}
for i, key in ipairs(KEYS) do
  local one = asked[i]
  local state = one.state
  local short = one.grant < one.cost
  if whole and refused > 0 then one.grant = 0 end
  if one.grant > 0 then state.add(one.grant) end
  if not whole then short = state.left() < 1 end
  local retry = short and math.max(1, state.retry(whole and one.cost or 1)) or 0
  if one.grant > 0 or one.owed ~= 0 then
    local text = state.text()
    if text then
      redis.call('SET', key, text, 'PX', math.max(1, math.ceil(state.ttl() / 1000)))
    else
      redis.call('DEL', key)
    end
  end
  local a = 5 * i - 3
  answer[a], answer[a + 1], answer[a + 2] = one.grant, math.max(0, state.left()), state.reset()
  answer[a + 3], answer[a + 4] = retry, state.wait()
end
return answer
