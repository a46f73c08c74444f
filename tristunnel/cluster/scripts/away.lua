-- lease, member, fence, milliseconds
local id, member, fence, milliseconds = unpack(ARGV)
local lease = get(leases, id)
if lease and lease.member == member and lease.fence == tonumber(fence) and not isAway(id) then
  away(id, lease, tonumber(milliseconds))
end
return {'done'}
