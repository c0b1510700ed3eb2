-- Appends publications to the histories of their channels and fans them out, in order.
-- KEYS: for each publication the history list (its name is the pub/sub channel's too) and the top.
-- ARGV: an epoch for channels that have none; for each publication: position ("": none), header, payload, messages to
--   keep, seconds to keep them, seconds to keep the top.
-- Returns for each publication its offset (0: refused, the channel holds this position or a later one) and how many
-- nodes listened. A top is the text "<offset> <epoch> <last position>".
local answers = {}
for number = 1, (#ARGV - 1) / 6 do
  local list, top = KEYS[2 * number - 1], KEYS[2 * number]
  local base = 6 * number - 4
  local position = ARGV[base]
  local offset, epoch, last = 0, ARGV[1], ''
  local known = redis.call('GET', top)
  if known then
    offset, epoch, last = string.match(known, '^(%d+) (%S+) (%S*)$')
    offset = tonumber(offset)
  else
    redis.call('DEL', list)
  end
  if position ~= '' and position <= last then
    answers[#answers + 1] = 0
    answers[#answers + 1] = 0
  else
    offset = offset + 1
    if position ~= '' then last = position end
    local place = string.format('%.0f', offset) .. ' ' .. epoch .. ' '
    local message = place .. ARGV[base + 1] .. '\n' .. ARGV[base + 2]
    if redis.call('RPUSH', list, message) > tonumber(ARGV[base + 3]) then
      redis.call('LTRIM', list, -ARGV[base + 3], -1)
    end
    redis.call('EXPIRE', list, ARGV[base + 4])
    redis.call('SET', top, place .. last, 'EX', ARGV[base + 5])
    answers[#answers + 1] = offset
    answers[#answers + 1] = redis.call('PUBLISH', list, message)
  end
end
return answers
