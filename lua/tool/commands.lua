--- commands: what the help of a command says, in parts: for completion and for the manual.
-- The help begins with "usage: tidegate NAME ...", which goes on in lines below it, and a line that says what the command does. Lines that
-- begin with two blanks explain an option or a word each, behind two more blanks.
local commands = {}

-- What stands for a file.
local FILES = { FILE = true, PATH = true, DIR = true }

local function add_option(parsed, name, value, text)
  local option = parsed.by_name[name]
  if not option then
    option = { name = name, text = "" }
    parsed.by_name[name], parsed.options[#parsed.options + 1] = option, option
  end
  option.value = option.value or value
  option.files = option.value ~= nil and FILES[option.value] == true
  if text and option.text == "" then option.text = text end
end

-- Options stand in brackets, with the name of their value; what is left are words, in small letters, and files.
local function read_usage(parsed, usage)
  local rest = usage:gsub("^tidegate %l+", ""):gsub("%[options%]", " "):gsub("%b[]", function(group)
    local name, value = group:match "^%[(%-%-[%l-]+) ?(.*)%]$"
    if not name then return nil end
    add_option(parsed, name, value ~= "" and value or nil)
    return " "
  end)
  parsed.files = rest:find("FILE", 1, true) ~= nil
  for word in rest:gsub("FILE[%w.]*", " "):gmatch "%l+" do parsed.words[#parsed.words + 1] = word end
end

--- parse(command) -> { name, usages, summary, text = list of lines, items = list of { head, text }, ending, options, words, files }
-- `options`: list of { name, value, text, files }, `words` what may stand behind the command, `files`: a file may.
function commands.parse(command)
  local parsed = { name = command.name, text = {}, items = {}, options = {}, by_name = {}, words = {}, ending = {} }
  local lines = {}
  for line in command.help:gmatch "[^\n]+" do lines[#lines + 1] = line end
  local usages, first = { (lines[1]:gsub("^usage: ", "")) }, 2
  while lines[first]:find "^       " do
    local more = lines[first]:gsub("^ +", "")
    if more:find "^tidegate " then usages[#usages + 1] = more else usages[#usages] = usages[#usages] .. " " .. more end
    first = first + 1
  end
  parsed.usages, parsed.summary = usages, lines[first]
  for _, usage in ipairs(usages) do read_usage(parsed, usage) end
  for i = first, #lines do
    local line = lines[i]
    local head, text = line:match "^  +(%S.-)  +(%S.*)$"
    local last = parsed.items[#parsed.items]
    if head then
      parsed.items[#parsed.items + 1] = { head = head, text = text }
      local name, value = head:match "(%-%-[%l-]+) ?(.*)$"
      if name then add_option(parsed, name, value ~= "" and value or nil, text) end
    elseif line:find "^ " and last then
      last.text = last.text .. " " .. line:match "^ +(.*)$"
    else
      local into = last and parsed.ending or parsed.text
      into[#into + 1] = line
    end
  end
  add_option(parsed, "--help", nil, "what the command does and takes")
  return parsed
end

--- all(core) -> list
function commands.all(core)
  local list = {}
  for i, command in ipairs(core.commands) do list[i] = commands.parse(command) end
  return list
end

return commands
