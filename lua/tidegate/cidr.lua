--- cidr: sets of networks: tg.cidr { "10.0.0.0/8", "::1" }. To be made in set-up; a question costs a search in a sorted list.
local abi = require "abi"

local C = abi.C
local cidr = {}
local Set = { __name = "networks" }
Set.__index = Set

--- set(list or text) -> set. An entry that is no network raises, and so does one with bits behind its prefix.
-- IPv4 and IPv6 are two worlds: "::/0" holds no IPv4 address. An IPv4-mapped one ("::ffff:10.0.0.1") is IPv4 on both sides.
function cidr.set(list)
  if type(list) == "string" then list = { list } end
  if type(list) ~= "table" then error("tg.cidr needs a list of networks, found a " .. type(list), 2) end
  local networks, count = abi.networks(), 0
  for key in pairs(list) do
    if type(key) ~= "number" then error(("tg.cidr needs a list of networks, found the key %q in it"):format(tostring(key)), 2) end
    count = count + 1
  end
  for i = 1, count do
    local entry = list[i]
    if type(entry) ~= "string" then error(("tg.cidr: [%d]: found a %s, expected a network: \"10.0.0.0/8\""):format(i, type(entry)), 2) end
    local rc = C.tg_abi_cidr_add(networks, entry, #entry)
    if rc == abi.ENOMEM then error("memory is short", 0) end
    if rc ~= 0 then error(("tg.cidr: [%d]: %s"):format(i, abi.out()), 2) end
  end
  C.tg_abi_cidr_settle(networks)
  return setmetatable({ networks = networks }, Set)
end

--- set:contains(ip) -> whether the text is an address in one of the networks; false for what is no address
function Set:contains(ip)
  if type(ip) ~= "string" then error("contains needs an address as text, found a " .. type(ip), 2) end
  return C.tg_abi_cidr_holds(self.networks, ip, #ip) == 1
end

-- The groups of 16 bits of an IPv6 address in any of its forms; nil for what is none.
local function groups_of(text)
  local head, tail = text:match "^(.-)::(.*)$"
  local before, after = {}, {}
  for group in (head or text):gmatch "[^:]+" do before[#before + 1] = tonumber(group, 16) end
  for group in (tail or ""):gmatch "[^:]+" do after[#after + 1] = tonumber(group, 16) end
  if not head and #before ~= 8 then return nil end
  while #before + #after < 8 do before[#before + 1] = 0 end
  for _, group in ipairs(after) do before[#before + 1] = group end
  return #before == 8 and before or nil
end

--- network(ip, bits = 64) -> what one client is likely to have of the addresses: of an IPv6 address its first `bits`, as "2001:db8:1:2::/64";
-- an IPv4 address as it is.
function cidr.network(ip, bits)
  bits = bits or 64
  if type(bits) ~= "number" or bits < 16 or bits > 128 or bits % 16 ~= 0 then error("network needs 16, 32, 48 ... 128 bits", 2) end
  if not ip:find(":", 1, true) then return ip end
  local mapped = ip:match "^::[fF][fF][fF][fF]:(%d+%.%d+%.%d+%.%d+)$"
  local groups = not mapped and groups_of(ip)
  if mapped then return mapped end
  if not groups then return ip end
  for i = 1, 8 do groups[i] = ("%x"):format(groups[i]) end
  if bits == 128 then return table.concat(groups, ":") .. "/128" end
  return table.concat(groups, ":", 1, bits / 16) .. "::/" .. bits
end

return cidr
