--- consumer_config: the word `consumer` of the configuration: who may ask, and by what he is known.
local schema = require "runtime.schema"
local secret = require "tidegate.secret"
local time = require "tidegate.time"
local use_config = require "runtime.use_config"

local t = schema.t
local consumer_config = {}

consumer_config.spec = {
  username = t.optional(t.string { match = "^[^%c]+$", len = 255 }), custom_id = t.optional(t.string { match = "^[^%c]+$", len = 255 }),
  groups = t.list(t.string { match = "^[^%c,]+$", len = 127 }, { default = {}, max = 100 }),
  plan = t.optional(t.string { match = "^[%w_.%-]+$", len = 63 }), labels = t.map(t.any(), {}), meta = t.map(t.any(), {}),
  credentials = t.map(t.any(), {}), use = t.any { default = {}, raw = true }, disabled = t.boolean(false),
}

consumer_config.spec.credentials.hides = true -- what stands there by mistake is a credential, too

-- What may stand beside the value of a credential.
local common = { id = t.optional(t.string { match = "^[^%c]+$", len = 127 }), expires = t.optional(t.string { len = 64 }),
  disabled = t.boolean(false) }

-- One credential as a table: what is common is judged here, the rest by the plugin that reads it.
local function check_credential(value, at, path, report)
  local given = {}
  for name in pairs(common) do given[name] = value[name] end
  local checked = schema.unfrozen(common, given, { report = report, at = at, path = path })
  if not checked or not checked.expires then return checked end
  local text = checked.expires
  checked.expires = time.parse(text:find "^%d+%-%d+%-%d+$" and text .. "T00:00:00Z" or text)
  if not checked.expires then
    report:found(at, { path[1], path[2], path[3], path[4], "expires" }, text, 'a date: "2031-01-31", "2031-01-31T12:00:00Z"')
  end
  return checked
end

local function is_table(value)
  return type(value) == "table" and not secret.is(value)
end

--- read(cfg, item, consumer, report): judges what the schema has let pass (nil: nothing), and adds it to the configuration. `item.file`: the
-- file of many that it is in. cfg.credentials has by kind whose each is (owners: places in cfg.consumers), and what it is: a text, a secret, or
-- { fields, id, expires, disabled }.
function consumer_config.read(cfg, item, consumer, report)
  local path = ('consumer "%s"'):format(item.name)
  local uses = consumer and use_config.read_list(consumer.use, item.at, { path }, report)
  local place = consumer and cfg.consumers:add(item.name, consumer, item.file, #uses > 0)
  if not place then return end
  if #uses > 0 then
    for _, use in ipairs(uses) do use.is_own = true end
    cfg.consumer_uses[#cfg.consumer_uses + 1] = { consumer = cfg.consumers.at(place), uses = uses }
  end
  for kind, given in pairs(consumer.credentials) do
    local list = is_table(given) and (given[1] ~= nil or next(given) == nil) and given or { given }
    local set = cfg.credentials[kind] or { owners = {}, values = {} }
    cfg.credentials[kind] = set
    for i, one in ipairs(list) do
      if is_table(one) then
        local checked = check_credential(one, item.at, { path, "credentials", kind, "[" .. i .. "]" }, report) or {}
        one = { fields = one, id = checked.id, expires = checked.expires, disabled = checked.disabled }
      end
      set.owners[#set.owners + 1], set.values[#set.values + 1] = place, one
    end
  end
  if not item.file then cfg.consumer[item.name] = item.at end
end

return consumer_config
