--- retry: whether a failed attempt is made again, when, and whether that is within the budget that all workers share.
local abi = require "abi"
local exchange = require "runtime.exchange"
local task = require "tidegate.task"

local C, vm, to_string = abi.C, abi.vm, abi.string
local min, random = math.min, math.random

local retry = {}
local tried = {} -- slot -> { serial, [peer] = true } of an exchange whose first attempt has failed
local bodyless = { GET = true, HEAD = true, OPTIONS = true, TRACE = true, CONNECT = true }
local idempotent = { PUT = true, DELETE = true }

--- prepare(conf): looks at the methods once.
function retry.prepare(conf)
  conf.method_set = {}
  for _, method in ipairs(conf.methods) do conf.method_set[method] = true end
  for status in pairs(conf.on) do conf.grpc = conf.grpc or type(status) == "number" and status >= 600 end
end

--- keep_body(conf, x): a body that another attempt would need is kept while it flows; after one that is too large there is no other attempt.
function retry.keep_body(conf, x)
  local method = exchange.method(x)
  if not bodyless[method] and (idempotent[method] or conf.method_set[method] or conf.grpc) then x.keep_body = conf.body end
end

-- What has become of the attempt, in the words of the configuration.
local function happened(x)
  if x.answered ~= 0 then return tonumber(x.status) end
  if x.began == 0 then return "connect" end
  return x.error == abi.ETIMEOUT and "timeout" or "reset"
end

local function is_wanted(conf, x)
  if x.answered ~= 0 then return true end -- the core has asked because of its status, or of its code of gRPC
  return conf.on[happened(x)] == true
end

-- Seconds that the upstream asks for, or 0.
local function retry_after(x)
  if x.answered == 0 or C.tg_abi_field_get(x, abi.RESPONSE, "retry-after", 11) ~= 0 then return 0 end
  return tonumber(to_string(vm.out.p, vm.out.n):match "^%s*(%d+)%s*$") or 0
end

--- wait_before(conf, n, asked, elsewhere) -> seconds before the retry `n`, with full jitter | nil: the upstream wants more than we would wait.
-- `elsewhere`: nothing has reached a peer yet, and there is another one.
function retry.wait_before(conf, n, asked, elsewhere)
  if asked > conf.retry_after_max then return nil end
  if asked > 0 then return asked end
  if elsewhere and n == 1 then return 0 end
  return random() * min(conf.backoff_max, conf.backoff * 2 ^ (n - 1))
end

local function remaining(x)
  return x.started + x.total_timeout / 1000 - vm.now
end

--- again(up, x) -> whether there is to be another attempt; waits until it is time for it.
function retry.again(up, x)
  local conf = up.conf.retry
  if not conf or x.may_retry == 0 or x.attempt >= conf.attempts or not is_wanted(conf, x) then return false end
  -- A code of gRPC says more than the method, which always is POST.
  local by_code = conf.grpc and x.answered ~= 0 and x.status == 200
  if x.may_retry == 1 and not by_code and not conf.method_set[exchange.method(x)] then return false end
  local seconds = retry.wait_before(conf, tonumber(x.attempt), retry_after(x), x.began == 0 and #up.list > 1)
  if not seconds or seconds >= remaining(x) then return false end
  -- What has not reached a peer is no load on any.
  if x.began ~= 0 and C.tg_abi_cell_budget_retry(up.cell, conf.budget, conf.budget_min) ~= 0 then return false end
  if seconds > 0 then task.sleep(seconds) end
  return true
end

--- failed(x, peer) -> the set of peers at which this exchange has failed, with this one.
function retry.failed(x, peer)
  local set = tried[x.slot]
  if not set or set.serial ~= x.serial then
    set = { serial = x.serial }
    tried[x.slot] = set
  end
  if peer then set[peer] = true end
  return set
end

return retry
