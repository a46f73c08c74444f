-- Somebody comes back to a lease.
-- lease, secret, owner, fence that the client has seen, member, milliseconds of grace
local id, secret, owner, shown, member, grace = unpack(ARGV)
local lease = get(leases, id)
if not lease and isNew(tonumber(grace)) then
  -- Whoever has it may not have said so yet.
  return refused('cluster-away')
end
if not lease or lease.secret ~= secret or lease.owner ~= owner then
  return {'nothing'}
end
local answer = {'done', '', lease.member, number(lease.fence)}
hasNot(lease.member, 'lease', id)
lease.fence = math.max(lease.fence, tonumber(shown)) + 1
lease.member = member
answer[2] = number(lease.fence)
put(leases, id, lease)
has(member, 'lease', id)
redis.call('ZREM', due, 'lease:' .. id)
local sorted = {}
for tunnel in pairs(lease.tunnels) do
  sorted[#sorted + 1] = tunnel
end
table.sort(sorted, function(a, b) return lease.tunnels[a] < lease.tunnels[b] end)
for _, tunnel in ipairs(sorted) do
  answer[#answer + 1] = get(tunnels, tunnel).record
end
tell('claimed', id, member, lease.fence)
return answer
