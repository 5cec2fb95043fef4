--- consumers: those that the configuration declares.
local consumers = {}
local by_id, list = {}, {}

-- Called once a generation, before plugins are loaded.
function consumers.define(declared)
  for _, consumer in ipairs(declared) do
    local object = { id = consumer.id, groups = consumer.groups, meta = consumer.meta, credentials = consumer.credentials }
    by_id[consumer.id] = object
    list[#list + 1] = object
  end
end

--- find(id) -> consumer | nil
function consumers.find(id)
  return by_id[id]
end

--- by_credential(kind) -> table from each credential of this kind to its consumer. For `setup`: it walks all of them.
-- A credential that two consumers have raises.
function consumers.by_credential(kind)
  local found = {}
  for _, consumer in ipairs(list) do
    local values = consumer.credentials[kind]
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      if found[value] and found[value] ~= consumer then
        error(("consumers %s and %s have the same %s"):format(found[value].id, consumer.id, kind), 2)
      end
      found[value] = consumer
    end
  end
  return found
end

return consumers
