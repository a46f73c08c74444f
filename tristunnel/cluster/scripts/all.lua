-- All tunnels, with who has each.
local answer = {}
local all = redis.call('HGETALL', tunnels)
for index = 2, #all, 2 do
  local tunnel = cjson.decode(all[index])
  local member, fence = placeOf(tunnel)
  answer[#answer + 1] = {tunnel.record, member, number(fence)}
end
return answer
