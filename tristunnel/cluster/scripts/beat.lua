-- A member is there. Whoever says so also ends what is over, for all members.
-- member, what it says of itself, run_id, milliseconds: until it is dead, of a lease;
-- version of the book
local member, about, run, ttl, lasting, version = unpack(ARGV)
local known = redis.call('HGET', epoch, 'version')
if known ~= version then
  if known and redis.call('ZCARD', beats) > 0 then
    return refused('version', known)
  end
  redis.call('HSET', epoch, 'version', version)
end
redis.call('HSET', members, member, about)
redis.call('ZADD', beats, now, member)
if redis.call('HGET', epoch, 'run') ~= run then
  redis.call('HSET', epoch, 'run', run, 'since', now)
end
for _, each in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 500)) do
  local kind, id = each:match('^(%a+):(.*)$')
  redis.call('ZREM', due, each)
  if kind == 'access' then
    local entry = get(access, id)
    if entry and entry.dropped == 0 then
      count('access:' .. entry.owner, -1)
    end
    redis.call('HDEL', access, id)
  else
    local lease = get(leases, id)
    if lease then
      for tunnel in pairs(lease.tunnels) do
        local known = get(tunnels, tunnel)
        if known then
          forget(tunnel, known)
        end
      end
      forgetLease(id, lease)
      tell('expired', id, lease.member, lease.fence)
    end
  end
end
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', beats, '-inf', now - tonumber(ttl))) do
  local had = redis.call('ZRANGEBYLEX', held, '[' .. dead .. '\0', '[' .. dead .. '\0\255',
                         'LIMIT', 0, 500)
  for _, each in ipairs(had) do
    local kind, id = each:match('^.-%z(%a+):(.*)$')
    if kind == 'tunnel' then
      local tunnel = get(tunnels, id)
      if tunnel then
        forget(id, tunnel)
        tell('closed', id, tunnel.member, tunnel.fence)
      end
    else
      local lease = get(leases, id)
      if lease and not isAway(id) then
        away(id, lease, tonumber(lasting))
      end
    end
    redis.call('ZREM', held, each)
  end
  if #had < 500 then
    redis.call('ZREM', beats, dead)
    redis.call('HDEL', members, dead)
    tell('member', dead, dead, 0)
  end
end
return {'done'}
