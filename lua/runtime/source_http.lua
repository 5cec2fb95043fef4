--- source_http: calls to the servers of a source. They lead where the operator says, so no address is closed to them.
local abi = require "abi"
local http = require "tidegate.http"
local tls = require "tidegate.tls"

local source_http = {}
local Client = {}
Client.__index = Client
local POOL = { idle = 4, idle_timeout = 60, requests = 10000 }
local BODY_MAX = 16 * 2 ^ 20 -- bytes; of Base64

--- new(conf, urls) -> client
function source_http.new(conf, urls)
  local client = setmetatable({ places = {}, timeout = conf.timeout }, Client)
  for i, text in ipairs(urls) do
    local scheme, host, port = text:match "^(https?)://%[([%x:.]+)%]:?(%d*)$"
    if not host then scheme, host, port = text:match "^(https?)://([%w.%-]+):?(%d*)$" end
    if not host then error(("source: found %q, expected a URL of scheme, host and port"):format(text), 0) end
    local usual = scheme == "https" and 443 or 80
    local number = scheme == "https" and assert(tls.number(conf.tls)) or 0
    client.places[i] = {
      peer = abi.peer(host, tonumber(port) or usual, number, false, POOL), host = text:match "^https?://(.*)$",
      defaults = { timeout = conf.timeout, connect_timeout = math.min(2, conf.timeout), scheme = scheme },
    }
  end
  return client
end

-- The server that has answered is asked first from now on. Others may have moved the places meanwhile.
local function prefer(places, place)
  for i, other in ipairs(places) do
    if other == place then
      table.remove(places, i)
      table.insert(places, 1, place)
      return
    end
  end
end

--- client:send(method, path, options) -> result with status 200 | nil, err. One that does not answer at all gives way to the next.
function Client:send(method, path, options)
  options.expect, options.max_body = 200, BODY_MAX
  local last
  for _, place in ipairs { unpack(self.places) } do
    local result, err = http.send(method, path, place.host, place.peer, options, place.defaults)
    if result or err.answer then
      if place ~= self.places[1] then prefer(self.places, place) end
      return result, err
    end
    last = err
  end
  return nil, last
end

return source_http
