--- records: what somebody keeps of exchanges that are under way: by their slots, which others take over when one has ended.
local abi = require "abi"

local vm = abi.vm
local records = {}

--- of(live, x) -> the record of the exchange in live[slot], which has its serial | nil
function records.of(live, x)
  local record = live[x.slot]
  return record and record.serial == x.serial and record or nil
end

--- current(live) -> that of the running exchange | nil
function records.current(live)
  local x = vm.exchange
  return x ~= nil and records.of(live, x) or nil
end

return records
