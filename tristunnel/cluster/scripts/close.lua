-- tunnel, member, fence
local id, member, fence = unpack(ARGV)
local tunnel = get(tunnels, id)
if not tunnel then
  return {'done'}
end
local servedBy, current = placeOf(tunnel)
if servedBy ~= member or current ~= tonumber(fence) then
  return {'done'}
end
forget(id, tunnel)
local lease = tunnel.lease ~= '' and get(leases, tunnel.lease)
if lease then
  lease.tunnels[id] = nil
  if next(lease.tunnels) == nil and isAway(tunnel.lease) then
    forgetLease(tunnel.lease, lease)
  else
    put(leases, tunnel.lease, lease)
  end
end
tell('closed', id, member, tonumber(fence))
return {'done'}
