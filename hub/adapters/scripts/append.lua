-- Appends the events of one or more calls: idempotency check and append are one step.
-- KEYS: the idempotency keys, then for each partition its stream and its total.
-- ARGV: number of idempotency keys; for each event (or run of events without keys): its id, index of its idempotency
--   key in KEYS (0: none), digest, seconds to keep it, number of packs, and for each pack the partition's number, how
--   many slices are in it, and its bytes.
-- Returns for each 0 (appended), "=<id>" (was appended before as <id>) or "!<id>" (the key has another body).
-- Each entry's first field begins with the partition's total before it, so that waiting slices are counted by
-- subtraction. "=" says that the value is a pack.
-- Keys are set last: if an append fails, no key may claim that it happened.
local keys = tonumber(ARGV[1])
local packs, counts = {}, {}
for number = 1, (#KEYS - keys) / 2 do
  packs[number] = {}
  counts[number] = {}
end

local answers, fresh, used = {}, {}, {}
local at = 2
while at <= #ARGV do
  local event, digest, keep = ARGV[at], ARGV[at + 2], ARGV[at + 3]
  local key = KEYS[tonumber(ARGV[at + 1])]
  local count = tonumber(ARGV[at + 4])
  local answer = 0
  if key then
    local known = used[key] or redis.call('GET', key)
    if known then
      local first, body = string.match(known, '^(%S+) (.*)$')
      answer = (body == digest and '=' or '!') .. first
    else
      used[key] = event .. ' ' .. digest
      fresh[#fresh + 1] = {key, used[key], keep}
    end
  end
  if answer == 0 then
    for base = at + 5, at + 2 + 3 * count, 3 do
      local number = tonumber(ARGV[base])
      local list = packs[number]
      list[#list + 1] = ARGV[base + 2]
      counts[number][#list] = tonumber(ARGV[base + 1])
    end
  end
  answers[#answers + 1] = answer
  at = at + 5 + 3 * count
end

for number, list in ipairs(packs) do
  local stream, total = KEYS[keys + 2 * number - 1], KEYS[keys + 2 * number]
  local from = 1
  while from <= #list do
    -- Lua passes at most about 8,000 arguments.
    local through = math.min(from + 1999, #list)
    local slices = 0
    local entry = {}
    for index = from, through do
      slices = slices + counts[number][index]
      entry[#entry + 1] = '='
      entry[#entry + 1] = list[index]
    end
    entry[1] = string.format('%.0f=', redis.call('INCRBY', total, slices) - slices)
    redis.call('XADD', stream, '*', unpack(entry))
    from = through + 1
  end
end

for _, key in ipairs(fresh) do redis.call('SET', key[1], key[2], 'EX', key[3]) end
return answers
