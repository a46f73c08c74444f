-- Access is granted or said again, used, taken back, or looked up.
-- mode, id, member; for "put": record, owner, uses, used, dropped, its end, most; for
-- "spend": milliseconds of grace
local mode, id, member = unpack(ARGV, 1, 3)
local entry = get(access, id)
local counted = entry and entry.dropped == 0
if mode == 'put' then
  local text, owner = ARGV[4], ARGV[5]
  local uses, used, dropped, over, most = unpack(ARGV, 6, 10)
  if not entry then
    if dropped == '0' and reached('access:' .. owner, tonumber(most)) then
      return refused('limit-reached', 'access', most)
    end
    if tonumber(over) <= now then
      return {'done', used, dropped}
    end
    entry = {record = text, owner = owner, uses = tonumber(uses), used = 0, dropped = 0,
             over = tonumber(over)}
    redis.call('ZADD', due, entry.over, 'access:' .. id)
  end
  entry.used = math.max(entry.used, tonumber(used))
  entry.dropped = math.max(entry.dropped, tonumber(dropped))
elseif mode == 'spend' and isNew(tonumber(ARGV[4])) then
  -- Whoever has spent some of it may not have said so yet.
  return refused('cluster-away')
elseif not entry then
  return {'nothing'}
elseif mode == 'spend' then
  if entry.dropped == 1 or entry.over <= now or (entry.uses > 0 and entry.used >= entry.uses) then
    return {'nothing'}
  end
  entry.used = entry.used + 1
elseif mode == 'drop' then
  entry.dropped = 1
end
if mode ~= 'find' then
  put(access, id, entry)
  if counted and entry.dropped == 1 then
    count('access:' .. entry.owner, -1)
  elseif not counted and entry.dropped == 0 then
    count('access:' .. entry.owner, 1)
  end
  tell('access', id, member, 0)
end
return {'done', number(entry.used), number(entry.dropped), entry.record}
