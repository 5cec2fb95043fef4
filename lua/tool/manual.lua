--- manual: tidegate doc --man. The manual page, made of what the help of the commands says.
local commands = require "tool.commands"

local manual = {}

local HEAD = [[
.TH TIDEGATE 1 "" "tidegate %s" "Tidegate"
.SH NAME
tidegate \- a programmable gateway
.SH SYNOPSIS
.B tidegate
.I COMMAND
.RI [ options ]
.SH DESCRIPTION
A gateway for HTTP with a small core in C and every policy in Lua.
One process, the master, watches and replaces those that serve.
Most commands ask it, by its control socket.
.SH COMMANDS
]]

local TAIL = [[
.SH ENVIRONMENT
.TP
.B TIDEGATE_CONTROL
The control socket, when \fB\-\-control\fR does not name it.
.SH FILES
.TP
.I /run/tidegate.sock
The control socket of a gateway that root runs.
Another user's is
.I $XDG_RUNTIME_DIR/tidegate.sock
or
.IR /tmp/tidegate\-UID.sock .
]]

local function escape(text)
  text = text:gsub("\\", "\\e"):gsub("%-", "\\-")
  return (text:gsub("^[.']", "\\&%0"))
end

local function paragraph(parts, lines)
  if #lines > 0 then parts[#parts + 1] = ".PP\n" end
  for i, line in ipairs(lines) do
    if i > 1 and line:find "^Exit status:" then parts[#parts + 1] = ".PP\n" end
    parts[#parts + 1] = escape(line) .. "\n"
  end
end

local function section(parts, command)
  parts[#parts + 1] = (".SS %s\n"):format(command.name)
  for i, usage in ipairs(command.usages) do parts[#parts + 1] = ("%s.B %s\n"):format(i > 1 and ".br\n" or "", escape(usage)) end
  paragraph(parts, command.text)
  for _, item in ipairs(command.items) do parts[#parts + 1] = (".TP\n.B %s\n%s\n"):format(escape(item.head), escape(item.text)) end
  paragraph(parts, command.ending)
end

--- page(core) -> text for man
function manual.page(core)
  local parts = { HEAD:format(escape(core.version)) }
  for _, command in ipairs(commands.all(core)) do section(parts, command) end
  parts[#parts + 1] = TAIL
  return table.concat(parts)
end

return manual
