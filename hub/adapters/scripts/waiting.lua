-- Counts waiting slices. KEYS: for each partition its stream and its total. Returns one number for each partition.
-- The first entry's first field says how many were appended before it. Foreign entries count as one slice each.
local counts = {}
for number = 1, #KEYS / 2 do
  local stream = KEYS[2 * number - 1]
  local length = redis.call('XLEN', stream)
  if length > 0 then
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    local before = tonumber(string.match(first[2][1], '^(%d+)=$'))
    local total = tonumber(redis.call('GET', KEYS[2 * number]) or nil)
    if before and total then length = math.max(length, total - before) end
  end
  counts[number] = length
end
return counts
