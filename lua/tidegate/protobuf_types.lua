--- protobuf_types: a FileDescriptorSet becomes tables that protobuf_wire.lua reads and writes messages by.
-- type: { name, fields (by number), by_number, by_name, by_json }. field: { name, json, number, kind, wire, tag, repeated, packed, presence,
-- type (of a message or enum), map = { key, value }, oneof, siblings }. enum: { name, by_number, by_name, zero }.
local wire = require "tidegate.protobuf_wire"

local types = {}
local ipairs = ipairs

local kinds = {
  "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group", "message", "bytes", "uint32", "enum", "sfixed32",
  "sfixed64", "sint32", "sint64",
}
local REPEATED = 3
local NUMBER_MAX = 2 ^ 29 - 1
local HTTP = 72295728 -- google.api.http, an extension of MethodOptions
local BYTES, GROUP, GROUP_END = 2, 3, 4
local unpackable = { string = true, bytes = true, message = true, group = true }

local function refuse(what, ...)
  error({ protobuf = what:format(...) }, 0)
end

local function tag_of(number, form)
  return wire.varint_bytes(number * 8 + form, 0)
end

-- "shelf_name" -> "shelfName", where the compiler has not written it down.
local function to_json_name(name)
  return (name:gsub("_+(.?)", string.upper))
end

-- What both sides of the wire need of a field whose kind is known.
local function finish_field(field)
  field.wire = wire.of_kind[field.kind]
  field.tag = tag_of(field.number, field.packed and BYTES or field.wire)
  if field.kind == "group" then field.group_end = tag_of(field.number, GROUP_END) end
  return field
end

local function index(kind)
  table.sort(kind.fields, function(a, b) return a.number < b.number end)
  kind.by_number, kind.by_name, kind.by_json = {}, {}, {}
  for _, field in ipairs(kind.fields) do
    if kind.by_number[field.number] then refuse("message %s: two fields have the number %d", kind.name, field.number) end
    if kind.by_name[field.name] then refuse("message %s: two fields have the name %s", kind.name, field.name) end
    kind.by_number[field.number], kind.by_name[field.name], kind.by_json[field.json] = field, field, field
  end
  return kind
end

-- ---------------------------------------------------------------- descriptor.proto itself: what is read of it

-- { { number, name, kind or message, repeated? } ... } -> type
local function own(name, list)
  local fields = {}
  for i, entry in ipairs(list) do
    local is_message = type(entry[3]) == "table"
    fields[i] = finish_field { number = entry[1], name = entry[2], json = entry[2], kind = is_message and "message" or entry[3],
      type = is_message and entry[3] or nil, repeated = entry[4] or false, presence = true }
  end
  return index { name = name, fields = fields }
end

local MANY = true
local http_pattern = own("CustomHttpPattern", { { 1, "kind", "string" }, { 2, "path", "string" } })
local http_fields = {
  { 2, "get", "string" }, { 3, "put", "string" }, { 4, "post", "string" }, { 5, "delete", "string" }, { 6, "patch", "string" },
  { 7, "body", "string" }, { 8, "custom", http_pattern }, { 12, "response_body", "string" },
}
local http_more = own("HttpRule", http_fields) -- additional bindings have none of their own
http_fields[#http_fields + 1] = { 11, "additional_bindings", http_more, MANY }
local http_rule = own("HttpRule", http_fields)

local field_descriptor = own("FieldDescriptorProto", {
  { 1, "name", "string" }, { 3, "number", "int32" }, { 4, "label", "int32" }, { 5, "type", "int32" }, { 6, "type_name", "string" },
  { 8, "options", own("FieldOptions", { { 2, "packed", "bool" } }) }, { 9, "oneof_index", "int32" }, { 10, "json_name", "string" },
  { 17, "proto3_optional", "bool" },
})
local enum_descriptor = own("EnumDescriptorProto", {
  { 1, "name", "string" }, { 2, "value", own("EnumValueDescriptorProto", { { 1, "name", "string" }, { 2, "number", "int32" } }), MANY },
})
local message_fields = {
  { 1, "name", "string" }, { 2, "field", field_descriptor, MANY }, { 4, "enum_type", enum_descriptor, MANY },
  { 7, "options", own("MessageOptions", { { 7, "map_entry", "bool" } }) },
  { 8, "oneof_decl", own("OneofDescriptorProto", { { 1, "name", "string" } }), MANY },
}
local message_descriptor = own("DescriptorProto", message_fields)
do -- messages within messages
  local nested = finish_field { number = 3, name = "nested_type", json = "nested_type", kind = "message", type = message_descriptor, repeated = true }
  table.insert(message_descriptor.fields, nested)
  index(message_descriptor)
end
local method_descriptor = own("MethodDescriptorProto", {
  { 1, "name", "string" }, { 2, "input_type", "string" }, { 3, "output_type", "string" },
  { 4, "options", own("MethodOptions", { { HTTP, "http", http_rule } }) }, { 5, "client_streaming", "bool" }, { 6, "server_streaming", "bool" },
})
local file_descriptor = own("FileDescriptorProto", {
  { 1, "name", "string" }, { 2, "package", "string" }, { 4, "message_type", message_descriptor, MANY }, { 5, "enum_type", enum_descriptor, MANY },
  { 6, "service", own("ServiceDescriptorProto", { { 1, "name", "string" }, { 2, "method", method_descriptor, MANY } }), MANY },
  { 12, "syntax", "string" },
})
local file_set = own("FileDescriptorSet", { { 1, "file", file_descriptor, MANY } })

-- google.rpc.Status: what errors of gRPC may carry, whether the set has it or not.
local status = own("google.rpc.Status", {
  { 1, "code", "int32" }, { 2, "message", "string" },
  { 3, "details", own("google.protobuf.Any", { { 1, "type_url", "string" }, { 2, "value", "bytes" } }), MANY },
})

-- ---------------------------------------------------------------- names first

local function join(package, name)
  if type(name) ~= "string" or not name:find "^[%a_][%w_]*$" then refuse("something in package %q has a name that is none", package) end
  return package == "" and name or package .. "." .. name
end

local function declare(self, name, found)
  if self.types[name] then refuse("there are two of the name %s", name) end
  found.name = name
  self.types[name] = found
end

local function add_enum(self, descriptor, package)
  local found = { is_enum = true, by_number = {}, by_name = {}, zero = 0 }
  declare(self, join(package, descriptor.name), found)
  for _, value in ipairs(descriptor.value or {}) do
    local number = value.number or 0
    join("", value.name)
    found.by_number[number] = found.by_number[number] or value.name -- the first of several names counts
    found.by_name[value.name] = number
  end
  found.zero = found.by_number[0] or 0
end

local function add_message(self, descriptor, package, syntax)
  local found = { fields = {}, is_map_entry = descriptor.options and descriptor.options.map_entry }
  local name = join(package, descriptor.name)
  declare(self, name, found)
  self.pending[#self.pending + 1] = { type = found, descriptor = descriptor, syntax = syntax }
  for _, nested in ipairs(descriptor.nested_type or {}) do add_message(self, nested, name, syntax) end
  for _, enum in ipairs(descriptor.enum_type or {}) do add_enum(self, enum, name) end
end

-- ---------------------------------------------------------------- then fields

local function resolve(self, name, where)
  local found = self.types[(name or ""):gsub("^%.", "")]
  if not found then
    refuse("%s: the type %s is not in the set: make it with --include_imports", where, tostring(name))
  end
  return found
end

local function new_field(self, descriptor, owner, syntax)
  local where = ("message %s, field %s"):format(owner.name, tostring(descriptor.name))
  join("", descriptor.name)
  local number, kind = descriptor.number or 0, kinds[descriptor.type or 0]
  if not kind then refuse("%s: a type that there is not", where) end
  if number < 1 or number > NUMBER_MAX then refuse("%s: the number %d is none of a field", where, number) end
  local field = { name = descriptor.name, json = descriptor.json_name or to_json_name(descriptor.name), number = number, kind = kind,
    repeated = descriptor.label == REPEATED }
  if field.wire == GROUP or kind == "message" or kind == "group" or kind == "enum" then
    field.type = resolve(self, descriptor.type_name, where)
    if (field.type.is_enum or false) ~= (kind == "enum") then refuse("%s: %s is of another kind", where, field.type.name) end
  end
  local options = descriptor.options or {}
  if field.repeated and not unpackable[kind] then
    field.packed = options.packed
    if field.packed == nil then field.packed = syntax == "proto3" end
  end
  field.presence = not field.repeated and (syntax ~= "proto3" or kind == "message" or kind == "group" or descriptor.oneof_index ~= nil)
  return finish_field(field)
end

local function add_oneofs(owner, descriptor, members)
  for i, oneof in ipairs(descriptor.oneof_decl or {}) do
    local list = members[i - 1] or {}
    for _, field in ipairs(list) do
      local siblings = {}
      for _, other in ipairs(list) do
        if other ~= field then siblings[#siblings + 1] = other.name end
      end
      field.oneof, field.siblings = oneof.name or owner.name, siblings
    end
  end
end

local function fill(self, entry)
  local owner, descriptor, members = entry.type, entry.descriptor, {}
  for i, given in ipairs(descriptor.field or {}) do
    local field = new_field(self, given, owner, entry.syntax)
    owner.fields[i] = field
    if given.oneof_index and not given.proto3_optional then
      members[given.oneof_index] = members[given.oneof_index] or {}
      table.insert(members[given.oneof_index], field)
    end
  end
  add_oneofs(owner, descriptor, members)
  index(owner)
end

local function link_maps(self)
  for _, entry in ipairs(self.pending) do
    for _, field in ipairs(entry.type.fields) do
      if field.repeated and field.kind == "message" and field.type.is_map_entry then
        local key, value = field.type.by_number[1], field.type.by_number[2]
        if not key or not value or key.name ~= "key" or value.name ~= "value" or unpackable[key.kind] and key.kind ~= "string" then
          refuse("message %s: the map %s is malformed", entry.type.name, field.name)
        end
        -- An entry always says both.
        key.presence, value.presence = true, true
        field.map = { key = key, value = value }
      end
    end
  end
end

-- ---------------------------------------------------------------- services

local function add_service(self, descriptor, package)
  local service = join(package, descriptor.name)
  for _, given in ipairs(descriptor.method or {}) do
    join("", given.name)
    local where = ("method %s/%s"):format(service, given.name)
    self.methods[#self.methods + 1] = {
      service = service, name = given.name, path = "/" .. service .. "/" .. given.name,
      input = resolve(self, given.input_type, where), output = resolve(self, given.output_type, where),
      client_streaming = given.client_streaming or false, server_streaming = given.server_streaming or false,
      http = given.options and given.options.http,
    }
  end
end

local function read(bytes)
  local set = wire.decode(file_set, bytes)
  if not set.file then refuse "there is no file in it" end
  local self = { types = {}, methods = {}, pending = {} }
  for _, file in ipairs(set.file) do
    local package, syntax = file.package or "", file.syntax or "proto2"
    if syntax ~= "proto2" and syntax ~= "proto3" then refuse("%s is of the syntax %q; proto2 and proto3 are known", tostring(file.name), syntax) end
    for _, message in ipairs(file.message_type or {}) do add_message(self, message, package, syntax) end
    for _, enum in ipairs(file.enum_type or {}) do add_enum(self, enum, package) end
  end
  for _, entry in ipairs(self.pending) do fill(self, entry) end
  link_maps(self)
  for _, file in ipairs(set.file) do
    for _, service in ipairs(file.service or {}) do add_service(self, service, file.package or "") end
  end
  self.types[status.name] = self.types[status.name] or status
  self.pending = nil
  return self
end

--- read(bytes of a FileDescriptorSet) -> { types = { [full name] = type }, methods = { method ... } } | nil, what is wrong
function types.read(bytes)
  return wire.guard(read, bytes)
end

return types
