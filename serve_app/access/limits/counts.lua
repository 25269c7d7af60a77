-- Applies a batch of settlements, renewals and claims, one after the other, all atomically.
-- It mirrors quotas.py and memory.py; a test runs the same random sequences through both.
--
-- ARGV[1]: seconds now, or "" for Redis's own clock. ARGV[2]: the batch as JSON:
--   settle: [subject, requests limit, tokens limit, day limit, requests, tokens, day, lease]
--   renew:  [subject, lease]
--   claim:  {tokens, day, lease, [[subject, parallel, requests, tokens, day], …]}
-- Returns a line for every claim: 1 or 0, then four numbers for each of its quotas.
--
-- P .. b:SUBJECT      hash: r and t, the levels of the buckets, at the time `at`
-- P .. d:DAY:SUBJECT  string: the day's tokens
-- P .. l:SUBJECT      sorted set: leases by the time at which they expire
-- A subject comes last, because an identity provider's names may hold any character.
local P, LEASE_S, MINUTE_S, ROUNDING, KEEP_S = 'llm:limits:', 15, 60, 1e-6, 180000
local batch = cjson.decode(ARGV[2])
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local function exact(number)
  return string.format('%.17g', number)
end

local function refill(level, capacity, elapsed_s)
  return math.min(capacity, level + math.max(0, elapsed_s) * capacity / MINUTE_S)
end

local function read(subject, parallel, requests, tokens, day, date)
  local balance = {requests = 0, tokens = 0, today = 0, parallel = 0}
  if requests > 0 or tokens > 0 then
    local values = redis.call('HMGET', P .. 'b:' .. subject, 'r', 't', 'at')
    local elapsed_s = now - (tonumber(values[3]) or now)
    if elapsed_s < 0 then -- the clock went back: count from here, or no bucket refills for long
      redis.call('HSET', P .. 'b:' .. subject, 'at', exact(now))
    end
    balance.requests = refill(tonumber(values[1]) or requests, requests, elapsed_s)
    balance.tokens = refill(tonumber(values[2]) or tokens, tokens, elapsed_s)
  end
  if day > 0 then
    balance.today = tonumber(redis.call('GET', P .. 'd:' .. date .. ':' .. subject)) or 0
  end
  if parallel > 0 then
    local leases = P .. 'l:' .. subject
    redis.call('ZREMRANGEBYSCORE', leases, '-inf', exact(now))
    redis.call('ZREMRANGEBYSCORE', leases, '(' .. exact(now + LEASE_S), '+inf')
    balance.parallel = redis.call('ZCARD', leases)
  end
  return balance
end

local function write(subject, balance, requests, tokens, day, date)
  if requests > 0 or tokens > 0 then
    redis.call('HSET', P .. 'b:' .. subject, 'at', exact(now),
      'r', requests > 0 and exact(balance.requests) or '',
      't', tokens > 0 and exact(balance.tokens) or '')
    redis.call('EXPIRE', P .. 'b:' .. subject, KEEP_S)
  end
  if day > 0 then
    redis.call('SET', P .. 'd:' .. date .. ':' .. subject, exact(balance.today), 'EX', KEEP_S)
  end
end

local function add(balance, requests, tokens, day, back_requests, back_tokens)
  balance.requests = requests > 0 and math.min(requests, balance.requests + back_requests) or 0
  balance.tokens = tokens > 0 and math.min(tokens, balance.tokens + back_tokens) or 0
  balance.today = day > 0 and math.max(0, balance.today - back_tokens) or 0
end

local function lend(subject, lease)
  redis.call('ZADD', P .. 'l:' .. subject, exact(now + LEASE_S), lease)
  redis.call('EXPIRE', P .. 'l:' .. subject, KEEP_S)
end

local function settle(subject, requests, tokens, day, back_requests, back_tokens, date, lease)
  local balance = read(subject, 0, requests, tokens, day, date)
  add(balance, requests, tokens, day, back_requests, back_tokens)
  write(subject, balance, requests, tokens, day, date)
  if lease ~= '' then
    redis.call('ZREM', P .. 'l:' .. subject, lease)
  end
end

local function fits(balance, needed, parallel, requests, tokens, day)
  return (requests == 0 or balance.requests + ROUNDING >= 1)
    and (tokens == 0 or balance.tokens + ROUNDING >= needed)
    and (day == 0 or balance.today + needed <= day + ROUNDING)
    and (parallel == 0 or balance.parallel < parallel)
end

local function claim(needed, date, lease, quotas)
  local balances, granted = {}, true
  for i, quota in ipairs(quotas) do
    local subject, parallel, requests, tokens, day = unpack(quota)
    balances[i] = read(subject, parallel, requests, tokens, day, date)
    granted = granted and fits(balances[i], needed, parallel, requests, tokens, day)
  end
  local words = {granted and '1' or '0'}
  for i, quota in ipairs(quotas) do
    local subject, parallel, requests, tokens, day = unpack(quota)
    local balance = balances[i]
    if granted then
      add(balance, requests, tokens, day, -1, -needed)
      if parallel > 0 then
        lend(subject, lease)
      end
    end
    write(subject, balance, requests, tokens, day, date) -- refilled, also where it was refused
    for _, name in ipairs({'requests', 'tokens', 'today', 'parallel'}) do
      words[#words + 1] = exact(balance[name])
    end
  end
  return table.concat(words, ' ')
end

for _, one in ipairs(batch.settle) do settle(unpack(one)) end
for _, one in ipairs(batch.renew) do lend(unpack(one)) end
local lines = {}
for i, one in ipairs(batch.claim) do lines[i] = claim(unpack(one)) end
return table.concat(lines, '\n')
