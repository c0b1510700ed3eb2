-- Appends the events of one or more calls: idempotency check and append are one step.
-- KEYS: for each partition its stream and its total, then the idempotency keys.
-- ARGV: number of partitions; for each event (or run of events without keys): its id, index of its idempotency key in
--   KEYS (0: none), digest, seconds to keep it, number of slices, and for each slice the partition's number and the bytes.
-- Returns for each 0 (appended), "=<id>" (was appended before as <id>) or "!<id>" (the key has another body).
-- Each entry's first field is the partition's total before it, so that waiting slices are counted by subtraction.
-- Keys are set last: if an append fails, no key may claim that it happened.
local partitions = tonumber(ARGV[1])
local slices = {}
for number = 1, partitions do slices[tostring(number)] = {} end

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
    for index = 1, count do
      local list = slices[ARGV[at + 3 + 2 * index]]
      list[#list + 1] = ARGV[at + 4 + 2 * index]
    end
  end
  answers[#answers + 1] = answer
  at = at + 5 + 2 * count
end

for number = 1, partitions do
  local list = slices[tostring(number)]
  local from = 1
  while from <= #list do
    -- Lua passes at most about 8,000 arguments.
    local through = math.min(from + 1999, #list)
    local total = redis.call('INCRBY', KEYS[2 * number], through - from + 1)
    local entry = {}
    for index = from, through do
      entry[#entry + 1] = index == from and string.format('%.0f', total - (through - from + 1)) or ''
      entry[#entry + 1] = list[index]
    end
    redis.call('XADD', KEYS[2 * number - 1], '*', unpack(entry))
    from = through + 1
  end
end

for _, key in ipairs(fresh) do redis.call('SET', key[1], key[2], 'EX', key[3]) end
return answers
