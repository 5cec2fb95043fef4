--- source_http: calls to the servers of a source. They lead where the operator says, so no address is closed to them.
local abi = require "abi"
local failure = require "tidegate.failure"
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

--- client:send(method, path, options) -> result with status 200 | nil, err. The server that answered last is asked first.
function Client:send(method, path, options)
  options.expect, options.max_body = 200, BODY_MAX
  local last
  for _ = 1, #self.places do
    local place = self.places[1]
    local result, err = http.send(method, path, place.host, place.peer, options, place.defaults)
    if result then return result end
    last = err
    if err.answer then return nil, err end
    table.insert(self.places, table.remove(self.places, 1))
  end
  return nil, last or failure.new("connect", "there is no server")
end

return source_http
