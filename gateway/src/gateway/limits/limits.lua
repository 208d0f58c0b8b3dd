-- What an API key has used at all gateways together: what window.py and table.py hold for one gateway. Each call is one atomic step.
--
-- A key's name is part of each of its keys:
--   ...:requests, :tokens_in, :tokens_out   hashes: the windows. head, total, debt, and a field per slot that is not empty
--   ...:held         a hash: process -> "requests in flight, tokens of the month reserved"
--   ...:month:N      a hash: gateway -> tokens used there in month N
-- and for all of them:
--   ...:processes    a sorted set: process -> until when it counts as alive, in milliseconds
--
-- The clock is that of Redis, so those of the gateways do not matter. What a process holds is forgotten once it has not
-- renewed itself for a while; a gateway's month never shrinks, so it may be told any number of times.

local SLOT_MS, KEPT = 250, 241 -- as in window.py: the window has one slot more than a minute has
local MONTH_S, HELD_S = 62 * 24 * 3600, 24 * 3600 -- for which a month, and what is held, is kept after its last change

local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now = math.floor(now_ms / SLOT_MS)

-- Windows

local function slots_of(window, from, to) -- amounts, oldest first; false for an empty slot
  local fields = {}
  for number = from, to do fields[#fields + 1] = number % KEPT end
  return redis.call('HMGET', window.key, unpack(fields)), fields
end

local function pay(window, slots) -- of the debt what fits in the newest slot
  local paid = math.min(window.debt, window.limit - window.total)
  if paid > 0 then
    local at = window.head % KEPT
    slots[at] = (slots[at] or 0) + paid
    window.total, window.debt = window.total + paid, window.debt - paid
  end
end

-- Pay the debt as if somebody had looked in each slot, so that it is paid while nobody asks. As long as there is debt, what
-- leaves is paid at once: after a whole window its slots are the same again.
local function pay_until_now(window)
  local slots, fields, amounts = {}, {}, slots_of(window, 0, KEPT - 1)
  for at = 0, KEPT - 1 do slots[at] = tonumber(amounts[at + 1]) end
  pay(window, slots)
  while window.debt > 0 and window.head < now do
    if window.total == window.limit then
      local windows = math.min(math.floor((now - window.head) / KEPT), math.floor(window.debt / window.limit))
      window.head, window.debt = window.head + windows * KEPT, window.debt - windows * window.limit
    end
    if window.head < now then
      window.head = window.head + 1
      local at = window.head % KEPT
      window.total, slots[at] = window.total - (slots[at] or 0), nil
    end
    pay(window, slots)
  end
  redis.call('DEL', window.key)
  for at, amount in pairs(slots) do
    fields[#fields + 1], fields[#fields + 2] = at, amount
  end
  if #fields > 0 then redis.call('HSET', window.key, unpack(fields)) end
end

-- Read a window, let the slots leave that are too old, and pay the debt; `save` must follow. limit: positive.
local function open(key, limit)
  local read = redis.call('HMGET', key, 'head', 'total', 'debt')
  local window = {
    key = key, limit = limit,
    head = tonumber(read[1] or now), total = tonumber(read[2] or 0), debt = tonumber(read[3] or 0),
  }
  if window.debt > 0 then pay_until_now(window) end
  if now > window.head then
    if window.total > 0 then
      local amounts, fields = slots_of(window, window.head + 1, window.head + math.min(now - window.head, KEPT))
      for _, amount in ipairs(amounts) do window.total = window.total - (tonumber(amount) or 0) end
      redis.call('HDEL', key, unpack(fields))
    end
    window.head = now
  end
  return window
end

local function take(window, amount)
  if amount > 0 then
    redis.call('HINCRBY', window.key, window.head % KEPT, amount)
    window.total = window.total + amount
  end
end

local function give_back(window, amount, slot)
  if amount <= 0 or window.head - slot >= KEPT then return end
  local there = tonumber(redis.call('HGET', window.key, slot % KEPT) or 0)
  amount = math.min(amount, there)
  if amount > 0 then
    redis.call('HINCRBY', window.key, slot % KEPT, -amount)
    window.total = window.total - amount
  end
end

local function charge(window, amount) -- what was used beyond a reservation: as far as it fits, the rest as a debt
  local fitting = math.max(0, math.min(amount, window.limit - window.total))
  take(window, fitting)
  window.debt = window.debt + amount - fitting
end

-- For how many slots `amount` will not fit, and after how many nothing will be counted any more, debts apart. As long as
-- there is debt, each window frees as much as the one before.
local function wait(window, amount)
  local left = window.total + window.debt + amount - window.limit
  local amounts = slots_of(window, window.head + 1, window.head + KEPT)
  local fits, whole, windows = nil, 0, 0
  if left <= 0 then fits = 0 end
  if left > 0 and window.total > 0 then windows = math.floor((left - 1) / window.total) end
  left = left - windows * window.total
  for at, text in ipairs(amounts) do
    local there = tonumber(text) or 0
    left = left - there
    if not fits and left <= 0 then fits = windows * KEPT + at end
    if there > 0 then whole = at end
  end
  return fits or KEPT, whole
end

local function save(window)
  redis.call('HSET', window.key, 'head', window.head, 'total', window.total, 'debt', window.debt)
  local lengths = 2 + math.ceil(window.debt / window.limit)
  redis.call('PEXPIRE', window.key, lengths * KEPT * SLOT_MS)
end

-- Requests in flight and the month

local function is_alive(process)
  return tonumber(redis.call('ZSCORE', KEYS[6], process) or 0) > now_ms
end

-- Requests in flight and tokens reserved at all processes that live; those that do not are forgotten.
local function held()
  local requests, tokens = 0, 0
  local all = redis.call('HGETALL', KEYS[4])
  for at = 1, #all, 2 do
    if is_alive(all[at]) then
      local some, reserved = string.match(all[at + 1], '(%d+) (%d+)')
      requests, tokens = requests + some, tokens + reserved
    else
      redis.call('HDEL', KEYS[4], all[at])
    end
  end
  return requests, tokens
end

local function hold(key, process, requests, tokens) -- change what a process holds by so much
  local some, reserved = string.match(redis.call('HGET', key, process) or '0 0', '(%d+) (%d+)')
  some, reserved = math.max(0, some + requests), math.max(0, reserved + tokens)
  if some + reserved == 0 then
    redis.call('HDEL', key, process)
  else
    redis.call('HSET', key, process, some .. ' ' .. reserved)
    redis.call('EXPIRE', key, HELD_S)
  end
end

local function tell_month(key, gateway, used) -- and return what is known of it, which never shrinks
  local told = tonumber(redis.call('HGET', key, gateway) or 0)
  if used > told then
    redis.call('HSET', key, gateway, used)
    redis.call('EXPIRE', key, MONTH_S)
  end
  return math.max(used, told)
end

local function month_used()
  local used = 0
  for _, one in ipairs(redis.call('HVALS', KEYS[5])) do used = used + one end
  return used
end

-- The calls. ARGV: the call's name, the process, the gateway, and numbers.

-- Reserve all that a request may cost, or nothing. Answers with the number of the limit that refuses it, in the order of
-- the arguments, or 0; the slot; requests in flight, the month's tokens used and reserved, all without this request; the
-- month's tokens of this gateway; and for each window how much is used, for how long the request would have to wait, and
-- when nothing will be counted.
local function reserve(process, gateway, month_here, costs, limits)
  local known_here = tell_month(KEYS[5], gateway, month_here)
  local flying, reserved = held()
  local used = month_used()
  local tokens = costs[2] + costs[3]
  local windows, refused = {}, 0
  for which = 1, 3 do
    if limits[which] >= 0 then
      local window = open(KEYS[which], limits[which])
      windows[which] = window
      if window.total + window.debt + costs[which] > window.limit then refused = which end
    end
  end
  if refused == 0 and limits[4] >= 0 and flying >= limits[4] then refused = 4 end
  if refused == 0 and limits[5] >= 0 and tokens > 0 and used + reserved + tokens > limits[5] then refused = 5 end
  if refused == 0 then hold(KEYS[4], process, 1, tokens) end
  local answer = { refused, now, flying, used, reserved, known_here }
  for which = 1, 3 do
    local window, before, fits, whole = windows[which], 0, 0, 0
    if window then
      before = window.total + window.debt
      if refused == 0 then
        take(window, costs[which])
        answer[2] = window.head
      elseif refused <= 3 then
        local since = now_ms % SLOT_MS
        fits, whole = wait(window, costs[which])
        fits, whole = math.max(0, fits * SLOT_MS - since), math.max(0, whole * SLOT_MS - since)
      end
      save(window)
    end
    answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = before, fits, whole
  end
  return answer
end

-- Let go of what a request holds, and count what it has used in place of what it had reserved in `slot`; -1: it had been
-- let through without Redis. A request that used nothing, not even a worker, is taken back.
local function settle(process, gateway, month_here, costs, limits, slot, used)
  tell_month(KEYS[5], gateway, month_here)
  hold(KEYS[4], process, -1, -costs[2] - costs[3])
  for which = 1, 3 do
    if slot >= 0 and limits[which] >= 0 then
      local window = open(KEYS[which], limits[which])
      give_back(window, costs[which] - used[which], slot)
      charge(window, math.max(0, used[which] - costs[which]))
      save(window)
    end
  end
  return { 0 }
end

-- Say that a process lives, and what it holds of each of some API keys: KEYS from the second on. Answers with whether it
-- was known: else Redis has lost what it knew.
local function renew(process, alive_ms, amounts)
  local was_known = redis.call('ZSCORE', KEYS[1], process) and 1 or 0
  redis.call('ZADD', KEYS[1], now_ms + alive_ms, process)
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
  redis.call('PEXPIRE', KEYS[1], alive_ms)
  for at = 2, #KEYS do
    local requests, tokens = amounts[2 * at - 3], amounts[2 * at - 2]
    if requests + tokens == 0 then
      redis.call('HDEL', KEYS[at], process)
    else
      redis.call('HSET', KEYS[at], process, requests .. ' ' .. tokens)
      redis.call('EXPIRE', KEYS[at], HELD_S)
    end
  end
  return { was_known }
end

-- Say how much of the month was used at a gateway with each of some API keys: KEYS. Answers with what is known of it: a
-- gateway that has started again may know less.
local function tell_months(gateway, amounts)
  local known = {}
  for at, key in ipairs(KEYS) do known[at] = tell_month(key, gateway, amounts[at]) end
  return known
end

local numbers = {}
for at = 4, #ARGV do numbers[#numbers + 1] = tonumber(ARGV[at]) end
local call, process, gateway = ARGV[1], ARGV[2], ARGV[3]
local function part(from, to) return { unpack(numbers, from, to) } end

if call == 'reserve' then return reserve(process, gateway, numbers[1], part(2, 4), part(5, 9)) end
if call == 'settle' then
  return settle(process, gateway, numbers[1], part(2, 4), part(5, 7), numbers[8], part(9, 11))
end
if call == 'renew' then return renew(process, numbers[1], part(2, #numbers)) end
return tell_months(gateway, numbers)
