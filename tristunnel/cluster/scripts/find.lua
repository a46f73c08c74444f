-- "uri", "id" or "reserved", and what
local kind, what = unpack(ARGV)
local id = what
if kind == 'reserved' then
  id = redis.call('HGET', reserved, what)
elseif kind == 'uri' then
  id = redis.call('HGET', uris, what) or what
end
local tunnel = id and get(tunnels, id)
if not tunnel then
  return {'nothing'}
end
local member, fence = placeOf(tunnel)
return {'done', tunnel.record, member, number(fence)}
