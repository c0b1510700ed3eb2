-- What a channel holds after an offset. KEYS: history list, top. ARGV: an epoch if the channel has none, how long a
-- new top is kept, the offset, the epoch that the asker knows ("": any), the most messages to return.
-- Returns the top, 1 if every message after the offset is returned (else 0), then messages, ascending.
local top = redis.call('GET', KEYS[2])
if not top then
  top = '0 ' .. ARGV[1] .. ' '
  redis.call('SET', KEYS[2], top, 'EX', ARGV[2])
  redis.call('DEL', KEYS[1])
end
local offset, epoch = string.match(top, '^(%d+) (%S+)')
local missed = tonumber(offset) - tonumber(ARGV[3])
if (ARGV[4] ~= '' and ARGV[4] ~= epoch) or missed < 0 then return {top, 0} end
if missed == 0 then return {top, 1} end
local held = math.min(missed, redis.call('LLEN', KEYS[1]))
local limit = tonumber(ARGV[5])
local complete = held == missed and held <= limit
if held == 0 or limit <= 0 then return {top, 0} end
local messages = redis.call('LRANGE', KEYS[1], -held, math.min(limit, held) - held - 1)
return {top, complete and 1 or 0, unpack(messages)}
