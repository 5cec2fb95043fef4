--- ask: questions and commands to the master, on the connection that the command line uses, too.
local abi = require "abi"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local task = require "tidegate.task"

local C = abi.C
local ask = {}

--- text(who, command, payload?) -> what the master says | nil, err. `who` stands in its log.
function ask.text(who, command, payload)
  payload = payload or ""
  local line = ("@%s %s%s"):format(who:gsub("[%s%c]", "_"):sub(1, 60), command, payload ~= "" and " +" .. #payload or "")
  local rc = C.tg_abi_ask(line, #line, payload, #payload)
  while rc == abi.AGAIN do
    task.wait()
    rc = C.tg_abi_ask(line, #line, payload, #payload)
  end
  if rc == 0 then return abi.out() end
  if rc == abi.EDENIED then return nil, failure.new("refused", (abi.out():gsub("%s+$", "")), 409) end
  return nil, failure.new("unavailable", "the master does not answer: " .. abi.code(rc), 503)
end

--- json(who, command) -> value | nil, err
function ask.json(who, command)
  local text, err = ask.text(who, command)
  if not text then return nil, err end
  return json.decode(text)
end

return ask
