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

return cidr
