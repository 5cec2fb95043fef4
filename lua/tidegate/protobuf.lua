--- protobuf: messages of protocol buffers, by descriptors that are read while the gateway runs; no code is generated.
local failure = require "tidegate.failure"
local mapping = require "tidegate.protobuf_json"
local types = require "tidegate.protobuf_types"
local wire = require "tidegate.protobuf_wire"

local protobuf = {}

local Message = { __name = "message type", __metatable = false }
Message.__index = Message

local function new_message(kind, set)
  return setmetatable({ kind = kind, name = kind.name, set = set }, Message)
end

--- type:decode(bytes) -> message | nil, err. A message is a table by the names of its fields; numbers of 64 bits are texts of digits, enums
-- names. At most 100 levels; fields that nobody knows are left out.
function Message:decode(bytes)
  if type(bytes) ~= "string" then error("decode needs a string, found a " .. type(bytes), 2) end
  local message, err = wire.guard(wire.decode, self.kind, bytes)
  if not message then return nil, failure.new("decode", ("malformed message of %s: %s"):format(self.name, err), 502) end
  return message
end

--- type:encode(message) -> bytes | nil, err: a value that its field cannot have, or a field that there is not
function Message:encode(message)
  if type(message) ~= "table" then error("encode needs a table, found a " .. type(message), 2) end
  local bytes, err = wire.guard(wire.encode, self.kind, message)
  if not bytes then return nil, failure.new("encode", err, 400) end
  return bytes
end

-- What the mapping needs of the options of a plugin.
local function options_of(self, given)
  given = given or {}
  if given.unknown ~= nil and given.unknown ~= "ignore" and given.unknown ~= "refuse" then error('unknown is "refuse" or "ignore"', 3) end
  return {
    types = self.set.types, ignore = given.unknown == "ignore", defaults = given.print_defaults, names = given.preserve_names,
    enum_numbers = given.enum_numbers, any_bytes = given.any_bytes,
  }
end

local function field_of(self, name)
  local field = name and self.kind.by_name[name]
  if name and not field then error(("there is no field %q in %s"):format(name, self.name), 3) end
  return field
end

--- type:to_json(message, { print_defaults?, preserve_names?, enum_numbers?, any_bytes?, field? }?) -> text | nil, err, by the mapping of proto3.
-- `field`: the value of this one alone. `any_bytes`: an Any of a type that is not in the set is printed as Base64, otherwise it is an error.
function Message:to_json(message, options)
  local field = field_of(self, options and options.field)
  local text, err = wire.guard(mapping.to_json, self.kind, message, options_of(self, options), field)
  if not text then return nil, failure.new("encode", ("%s has no form in JSON: %s"):format(self.name, err), 502) end
  return text
end

--- type:from_json(value, { unknown = "refuse" or "ignore", field? }?) -> message | nil, err. `value` is what tg.json.decode gives. `field`: the
-- value of this one alone, in a message.
function Message:from_json(value, options)
  local field = field_of(self, options and options.field)
  local found, err = wire.guard(mapping.from_json, self.kind, value, options_of(self, options), field)
  if err then return nil, failure.new("decode", err, 400) end
  if field then return { [field.name] = found } end
  return found
end

--- type:path("shelf.name") -> what `assign` takes | nil, what is wrong. Names of fields, as they are written or as they are in JSON.
function Message:path(text)
  return mapping.field_path(self.kind, text)
end

--- type:assign(message, path, texts, options?) -> true | nil, err: sets a field to what stood in a path or a query
function Message:assign(message, path, texts, options)
  local _, err = wire.guard(mapping.assign, message, path, texts, options_of(self, options))
  if err then return nil, failure.new("decode", err, 400) end
  return true
end

local Set = { __name = "descriptors", __metatable = false }
Set.__index = Set

--- set:message(name) -> type | nil: "library.v1.Shelf"
function Set:message(name)
  local kind = self.types[name]
  if not kind or kind.is_enum then return nil end
  return new_message(kind, self)
end

--- load(bytes of a FileDescriptorSet) -> set | nil, err. `protoc --include_imports --descriptor_set_out=FILE` makes one. Its `methods` are
-- { service, name, path, input, output, client_streaming, server_streaming, http }, with the rule of google.api.http as it is written.
function protobuf.load(bytes)
  if type(bytes) ~= "string" then error("protobuf.load needs a string, found a " .. type(bytes), 2) end
  local found, err = types.read(bytes)
  if not found then return nil, failure.new("decode", "no set of descriptors: " .. err) end
  local set = setmetatable({ types = found.types, methods = found.methods }, Set)
  for _, method in ipairs(set.methods) do
    method.input, method.output = new_message(method.input, set), new_message(method.output, set)
  end
  return set
end

return protobuf
