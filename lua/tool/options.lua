--- options: what stands behind the name of a command that is written in Lua.
local options = {}

--- parse(command, known, arguments) -> values by name, words | nil: it was told what is wrong. known: name -> "value" or "flag"
function options.parse(command, known, arguments)
  local values, words, i = {}, {}, 1
  local function wrong(text)
    io.stderr:write(("tidegate %s: %s\ntry: tidegate %s --help\n"):format(command, text, command))
    return nil
  end
  while i <= #arguments do
    local word = arguments[i]
    local name, value = word:match "^%-%-([%w-]+)=(.*)$"
    name = name or word:match "^%-%-([%w-]+)$" or word == "-c" and "config" or nil
    if not name then
      words[#words + 1] = word
    elseif known[name] == "flag" and not value then
      values[name] = true
    elseif known[name] == "value" then
      if not value then
        i = i + 1
        value = arguments[i]
      end
      if not value then return wrong(word .. " needs a value") end
      values[name] = value
    else
      return wrong("unknown option " .. word)
    end
    i = i + 1
  end
  return values, words
end

return options
