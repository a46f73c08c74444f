-- A tunnel that is opened, changed, or said again.
-- mode, id, record, member, fence, lease, caller, token, most of them, milliseconds of grace,
-- most of all
local mode, id, text, member, fence, lease, caller, token = unpack(ARGV, 1, 8)
fence = tonumber(fence)
local known = get(tunnels, id)
local holder = lease ~= '' and get(leases, lease)
if lease ~= '' and (not holder or holder.member ~= member or holder.fence ~= fence) then
  return refused('displaced')
end
if known and lease == '' and (known.member ~= member or known.fence ~= fence) then
  return refused('displaced')
end
if mode == 'change' and not known then
  return refused('unknown-tunnel')
end
if mode == 'open' then
  if known then
    return {'done'}
  end
  if isNew(tonumber(ARGV[11])) then
    return refused('cluster-away')
  end
  if caller ~= '' and reached('total', tonumber(ARGV[12])) then
    return refused('limit-reached', 'total', ARGV[12])
  end
  if reached('token:' .. token, tonumber(ARGV[10])) and token ~= '' then
    return refused('limit-reached', 'token', ARGV[10])
  end
  if reached('caller:' .. caller, tonumber(ARGV[9])) then
    return refused('limit-reached', 'caller', ARGV[9])
  end
end
local record = cjson.decode(text)
for _, each in ipairs(record.reserved) do
  if (redis.call('HGET', reserved, each) or id) ~= id then
    return refused('taken', each)
  end
end
if record.uri ~= '' and (redis.call('HGET', uris, record.uri) or id) ~= id then
  return refused('internal')
end
if known then
  release(id, known)
else
  if caller ~= '' then
    count('total', 1)
  end
  count('caller:' .. caller, 1)
  count('token:' .. token, 1)
  if holder then
    holder.tunnels[id] = holder.next
    holder.next = holder.next + 1
    put(leases, lease, holder)
  else
    has(member, 'tunnel', id)
  end
end
put(tunnels, id, {record = text, lease = lease, member = member, fence = fence,
                  caller = caller, token = token})
for _, each in ipairs(record.reserved) do
  redis.call('HSET', reserved, each, id)
end
if record.uri ~= '' then
  redis.call('HSET', uris, record.uri, id)
end
if not known then
  tell('opened', id, member, fence)
elseif mode == 'change' then
  tell('changed', id, member, fence)
end
return {'done'}
