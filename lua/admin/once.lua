--- once: a change that is sent with an Idempotency-Key is carried out once in a day, whoever sends it how often and to whichever worker.
-- One that was refused has changed nothing, and is tried again.
local crypto = require "tidegate.crypto"
local dict = require "tidegate.dict"
local response = require "tidegate.response"

local once = {}
local KEPT, RUNS = 24 * 3600, 120 -- seconds: that an answer is kept; after which one that never ended is forgotten

local function again(record, print)
  if record.print ~= print then return response.problem(422, "the Idempotency-Key was used for another change") end
  if not record.status then
    return response.problem(409, "the change with this Idempotency-Key is being carried out", nil, { ["Retry-After"] = "1" })
  end
  local r = response.respond(record.status, record.body, { ["Idempotency-Replayed"] = "true", ["Cache-Control"] = "no-store" })
  r.content_type = record.content_type
  return r
end

--- run(req, text, f, ...) -> response: of f(...), or of an earlier request with the same key. text: the body of the request
function once.run(req, text, f, ...)
  local key = req.headers["Idempotency-Key"]
  if not key then return f(...) end
  if #key > 255 or not key:find "^[!-~]+$" then return response.problem(400, "an Idempotency-Key is 1 to 255 bytes without blanks") end
  local store, name = dict.open "cache", "admin\1once\1" .. key
  local print = crypto.hex(crypto.sha256(req.method .. " " .. req.path .. "\n" .. text))
  local record = store:get(name)
  if record then return again(record, print) end
  local taken, err = store:add(name, { print = print }, RUNS)
  if err then return response.problem(503, "there is no room for the Idempotency-Key: " .. err) end
  if not taken then return again(store:get(name) or { print = print }, print) end
  local ok, r = pcall(f, ...)
  if ok and r.status < 400 and type(r.body) == "string" then
    store:set(name, { print = print, status = r.status, body = r.body, content_type = r.content_type }, KEPT)
  else
    store:set(name, nil)
  end
  if not ok then error(r, 0) end
  return r
end

return once
