--- correlation: the id of the running exchange, from the client or made, upstream and back; without a string of Lua.
local abi = require "abi"
local steps = require "tidegate.steps"

local C, vm = abi.C, abi.vm
local correlation = {}
local versions = { hex = 0, uuid = 4, uuid7 = 7 }

--- take(header, keep, generator): the id is what the request has in this field, if `keep` and it is harmless, otherwise a new one, which is put
-- there. generator: "hex", "uuid" or "uuid7"
function correlation.take(header, keep, generator)
  if C.tg_abi_correlate(vm.exchange, header, #header, keep and 1 or 0, versions[generator]) ~= 0 then error("memory is short", 0) end
end

--- step(header, keep, generator) -> the same, for the core
function correlation.step(header, keep, generator)
  return steps.new("correlate", { header = header, keep = keep, version = versions[generator] })
end

--- echo(header): the response tells the id.
function correlation.echo(header)
  local x = vm.exchange
  if x.id.n == 0 then C.tg_abi_id(x, 0) end
  C.tg_abi_field_set(x, abi.RESPONSE, header, #header, x.id.p, x.id.n)
end

--- edits(header) -> what echo does, for the core
function correlation.edits(header) return require("tidegate.edits").id(header) end

return correlation
