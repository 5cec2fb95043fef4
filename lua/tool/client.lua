--- client: what the commands have in common that ask a gateway: their options, the question, and tables for people.
local json = require "tidegate.json"

local client = {}
local USAGE, NOBODY = 2, 3 -- exit statuses
local PATIENCE = 20 -- tenths of a second, in which an upgrade may give the socket away

-- ---------------------------------------------------------------- options

local function usage_error(name, text)
  io.stderr:write(("tidegate %s: %s\ntry: tidegate %s --help\n"):format(name, text, name))
  return nil, USAGE
end

-- { json = "flag", route = "text", count = "number" }; what a number must be more than is 0.
local function take(name, kind, option, value, options)
  if kind == "flag" then
    if value then return usage_error(name, ("--%s takes no value"):format(option)) end
    options[option] = true
    return true
  end
  if not value then return usage_error(name, ("--%s needs a value"):format(option)) end
  options[option] = value
  if kind == "number" then
    options[option] = tonumber(value)
    if not options[option] or options[option] <= 0 or options[option] > 1e6 then
      return usage_error(name, ("--%s: found %q, expected a number above 0"):format(option, value))
    end
  end
  return true
end

--- options(name, kinds, arguments ...) -> table by name | nil, exit status
function client.options(name, kinds, ...)
  local arguments, options, i = { ... }, {}, 1
  while arguments[i] do
    local option, value = arguments[i]:match "^%-%-([%l-]+)=(.*)$"
    option = option or arguments[i]:match "^%-%-([%l-]+)$"
    local kind = option and (option == "control" and "text" or kinds[option])
    if not kind then return usage_error(name, ("there is no option %s"):format(arguments[i])) end
    if kind ~= "flag" and not value then
      i = i + 1
      value = arguments[i]
    end
    local ok, status = take(name, kind, option, value, options)
    if not ok then return nil, status end
    i = i + 1
  end
  return options
end

-- ---------------------------------------------------------------- questions

--- text(core, options, line, payload?) -> what the master says | nil, exit status; the failure was told
function client.text(core, options, line, payload)
  local status, text = core.ask(options.control or core.control, line, payload)
  if status == 0 then return text end
  io.stderr:write(text)
  return nil, status
end

--- ask(core, options, line, payload?) -> value | nil, exit status
function client.ask(core, options, line, payload)
  local text, status = client.text(core, options, line, payload)
  if not text then return nil, status end
  local value, err = json.decode(text)
  if value == nil then
    io.stderr:write("tidegate: the gateway's answer is no JSON: ", tostring(err), "\n")
    return nil, NOBODY
  end
  return value
end

--- go_on(core, options, line, payload?): as `ask`, for who goes on over an upgrade
function client.go_on(core, options, line, payload)
  for _ = 1, PATIENCE do
    local status, text = core.ask(options.control or core.control, line, payload)
    if status == 0 then return json.decode(text) end
    core.sleep(0.1)
  end
  return client.ask(core, options, line, payload)
end

-- ---------------------------------------------------------------- tables

--- clean(text) -> without what a terminal would obey
function client.clean(text)
  return (tostring(text):gsub("[%c\127]", "?"):gsub("\194[\128-\159]", "?"))
end

local function width(text) -- of characters, not bytes
  return select(2, text:gsub("[^\128-\191]", ""))
end

--- columns(rows) -> list of lines. The first row is the head; a cell that is a number is set to the right.
function client.columns(rows)
  local widths, right, lines = {}, {}, {}
  for r, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      if r > 1 and type(cell) == "number" then right[i] = true end
      row[i] = client.clean(cell)
      widths[i] = math.max(widths[i] or 0, width(row[i]))
    end
  end
  for r, row in ipairs(rows) do
    local parts = {}
    for i, cell in ipairs(row) do
      local space = (" "):rep(widths[i] - width(cell))
      parts[i] = right[i] and space .. cell or cell .. space
    end
    lines[r] = table.concat(parts, "  "):gsub(" +$", "")
  end
  return lines
end

--- print_columns(rows)
function client.print_columns(rows)
  io.write(table.concat(client.columns(rows), "\n"), "\n")
end

--- seconds(value) -> "1.2 ms", "-" when there is none
function client.seconds(value)
  if type(value) ~= "number" then return "-" end
  if value < 0.001 then return ("%.0f us"):format(value * 1e6) end
  if value < 1 then return ("%.1f ms"):format(value * 1e3) end
  return ("%.2f s"):format(value)
end

--- bytes(value) -> "12.3 MiB", "12 KiB" or "12 B"
function client.bytes(value)
  if value < 1024 then return ("%.0f B"):format(value) end
  if value < 1024 * 1024 then return ("%.0f KiB"):format(value / 1024) end
  return ("%.1f MiB"):format(value / 1024 / 1024)
end

return client
