-- A new lease; or, with a fence, one that a member says again that it has.
-- lease, secret, owner, member, fence
local id, secret, owner, member, fence = unpack(ARGV)
fence = tonumber(fence)
local known = get(leases, id)
if known and (known.fence > fence or (known.fence == fence and known.member ~= member)) then
  return refused('displaced', known.member .. '\0' .. number(known.fence))
end
local tunnelsOf, following = {}, 1
if known then
  hasNot(known.member, 'lease', id)
  tunnelsOf, following = known.tunnels, known.next
end
redis.call('ZREM', due, 'lease:' .. id)
has(member, 'lease', id)
put(leases, id, {secret = secret, owner = owner, member = member, fence = fence,
                 tunnels = tunnelsOf, next = following})
if known and known.fence < fence then
  tell('claimed', id, member, fence)
end
return {'done'}
