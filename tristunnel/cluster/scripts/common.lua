-- Before each of the other scripts. All keys are declared, and have one hash tag.
--
-- leases:  id -> {secret, owner, member, fence, tunnels = {id = number}, next}
-- tunnels: id -> {record = JSON, lease, member, fence, caller, token}
-- access:  id -> {record = JSON, owner, uses, used, dropped, over}
-- tokens:  name -> {version, line}
-- reserved, uris: what -> id of the tunnel      counts: "caller:X", "token:X", "access:X",
--   "total"
-- due:   "lease:ID", "access:ID", by the time of their end
-- held:  "MEMBER\0lease:ID" and "MEMBER\0tunnel:ID", to find what a dead member had
local members, beats, epoch, leases, tunnels, reserved, uris, counts, access, tokens, due,
      held, changes = unpack(KEYS)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function get(key, id)
  local text = redis.call('HGET', key, id)
  return text and cjson.decode(text)
end

local function put(key, id, value)
  redis.call('HSET', key, id, cjson.encode(value))
end

local function tell(kind, id, member, fence)
  redis.call('XADD', changes, 'MAXLEN', '~', 65536, '*', 'kind', kind, 'id', id,
             'member', member, 'fence', string.format('%d', fence))
end

local function refused(code, what, most)
  return {'refused', code, what or '', most or '0'}
end

local function number(fence)
  return string.format('%d', fence)
end

local function count(what, by)
  if redis.call('HINCRBY', counts, what, by) <= 0 then
    redis.call('HDEL', counts, what)
  end
end

local function reached(what, most)
  return most > 0 and tonumber(redis.call('HGET', counts, what) or '0') >= most
end

-- Whether the engine has come up so lately that not everybody has said what they have.
local function isNew(grace)
  return now - tonumber(redis.call('HGET', epoch, 'since') or '0') < grace
end

local function has(member, kind, id)
  redis.call('ZADD', held, 0, member .. '\0' .. kind .. ':' .. id)
end

local function hasNot(member, kind, id)
  redis.call('ZREM', held, member .. '\0' .. kind .. ':' .. id)
end

-- Who serves a tunnel: whoever has its lease.
local function placeOf(tunnel)
  local lease = tunnel.lease ~= '' and get(leases, tunnel.lease)
  if lease then
    return lease.member, lease.fence
  end
  return tunnel.member, tunnel.fence
end

local function release(id, tunnel)
  local record = cjson.decode(tunnel.record)
  for _, each in ipairs(record.reserved) do
    if redis.call('HGET', reserved, each) == id then
      redis.call('HDEL', reserved, each)
    end
  end
  if redis.call('HGET', uris, record.uri) == id then
    redis.call('HDEL', uris, record.uri)
  end
end

local function forget(id, tunnel)
  release(id, tunnel)
  redis.call('HDEL', tunnels, id)
  if tunnel.caller ~= '' then
    count('total', -1)
  end
  count('caller:' .. tunnel.caller, -1)
  count('token:' .. tunnel.token, -1)
  hasNot(tunnel.member, 'tunnel', id)
end

local function forgetLease(id, lease)
  redis.call('HDEL', leases, id)
  redis.call('ZREM', due, 'lease:' .. id)
  hasNot(lease.member, 'lease', id)
end

local function isAway(id)
  return redis.call('ZSCORE', due, 'lease:' .. id)
end

-- Nobody has a lease any more.
local function away(id, lease, milliseconds)
  if next(lease.tunnels) == nil then
    forgetLease(id, lease)
    return
  end
  redis.call('ZADD', due, now + milliseconds, 'lease:' .. id)
  tell('away', id, lease.member, lease.fence)
end
