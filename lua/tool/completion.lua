--- completion: tidegate completion. A script for a shell, made of what the help of the commands says.
local commands = require "tool.commands"

local completion = {}

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function names_of(list)
  local names = {}
  for i, entry in ipairs(list) do names[i] = entry.name end
  return names
end

-- ---------------------------------------------------------------- bash

-- Behind an option with a value: files, or nothing that we could know.
local function bash_values(command)
  local files, others, cases = {}, {}, {}
  for _, option in ipairs(command.options) do
    if option.value then
      local list = option.files and files or others
      list[#list + 1] = option.name
    end
  end
  if #files > 0 then cases[#cases + 1] = ("%s) COMPREPLY=($(compgen -f -- \"$current\")); return ;;"):format(table.concat(files, "|")) end
  if #others > 0 then cases[#cases + 1] = ("%s) return ;;"):format(table.concat(others, "|")) end
  return #cases > 0 and ("      case $previous in %s esac\n"):format(table.concat(cases, " ")) or ""
end

local function bash(list)
  local parts = { [[
# Completion of tidegate for bash: made by `tidegate completion bash`.
_tidegate() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words= files=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W ]] .. quote(table.concat(names_of(list), " ")) .. [[ -- "$current"))
    return
  fi
  case ${COMP_WORDS[1]} in
]] }
  for _, command in ipairs(list) do
    local words = { unpack(command.words) }
    for _, name in ipairs(names_of(command.options)) do words[#words + 1] = name end
    parts[#parts + 1] = ("    %s)\n%s      words=%s%s ;;\n"):format(command.name, bash_values(command), quote(table.concat(words, " ")),
      command.files and " files=1" or "")
  end
  parts[#parts + 1] = [[
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ -n "$files" ] && [ "${current#-}" = "$current" ]; then
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _tidegate tidegate
]]
  return table.concat(parts)
end

-- ---------------------------------------------------------------- zsh

local function zsh_option(option)
  local text = option.text:gsub("[%[%]:\\]", "\\%0")
  local value = option.value and (":%s:%s"):format((option.value:gsub("[:\\]", "\\%0")), option.files and "_files" or " ") or ""
  return quote(("%s[%s]%s"):format(option.name, text, value))
end

local function zsh(list)
  local parts = { "#compdef tidegate\n# Completion of tidegate for zsh: made by `tidegate completion zsh`.\n_tidegate() {\n  local -a commands=(\n" }
  for _, command in ipairs(list) do
    parts[#parts + 1] = ("    %s\n"):format(quote(command.name .. ":" .. command.summary:gsub("[:\\]", "\\%0")))
  end
  parts[#parts + 1] = [[
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local name=$words[2]
  shift words
  (( CURRENT-- ))
  case $name in
]]
  for _, command in ipairs(list) do
    local arguments = {}
    for i, option in ipairs(command.options) do arguments[i] = zsh_option(option) end
    if command.files then
      arguments[#arguments + 1] = "'*:file:_files'"
    elseif #command.words > 0 then
      arguments[#arguments + 1] = quote(("*:word:(%s)"):format(table.concat(command.words, " ")))
    end
    parts[#parts + 1] = ("    %s) _arguments %s ;;\n"):format(command.name, table.concat(arguments, " "))
  end
  parts[#parts + 1] = '  esac\n}\nif [ "$funcstack[1]" = _tidegate ]; then _tidegate "$@"; else compdef _tidegate tidegate; fi\n'
  return table.concat(parts)
end

local shells = { bash = bash, zsh = zsh }

--- main(core, shell) -> exit status
function completion.main(core, shell, more)
  local script = shells[shell]
  if not script or more then
    io.stderr:write "tidegate completion: found no shell that is known, expected bash or zsh\ntry: tidegate completion --help\n"
    return 2
  end
  io.write(script(commands.all(core)))
  return 0
end

return completion
