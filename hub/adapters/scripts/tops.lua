-- Offset and epoch of channels. KEYS: tops. ARGV: an epoch for channels that have none, and for each how long a new
-- top is kept. Returns the tops ("<offset> <epoch> <last position>").
local tops = {}
for number, top in ipairs(KEYS) do
  local known = redis.call('GET', top)
  if not known then
    known = '0 ' .. ARGV[1] .. ' '
    redis.call('SET', top, known, 'EX', ARGV[number + 1])
  end
  tops[number] = known
end
return tops
