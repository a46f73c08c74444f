-- A token is written down, if that is newer than what is known, or looked up.
-- mode, name, and for "put": version, line, member
local mode, name, version, line, member = unpack(ARGV)
local known = get(tokens, name)
if mode == 'put' and not (known and known.version >= tonumber(version)) then
  known = {version = tonumber(version), line = line}
  put(tokens, name, known)
  tell('token', name, member, 0)
end
if not known then
  return {'nothing'}
end
return {'done', number(known.version), known.line}
