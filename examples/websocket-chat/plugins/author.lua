--- author: each message gets the name of who has sent it, whatever he says of himself.
local function line(name, text)
  return ('{"from":%s,"text":%s}'):format(tg.json.encode(name), tg.json.encode(text))
end

return {
  api = 1,
  doc = [[
Wrap what clients say into JSON that names its author.
`/who` is answered by the gateway itself.]],

  websocket = function(ctx, message)
    if message.direction ~= "upstream" or message.type ~= "text" then return end
    local name = ctx.consumer.username
    if message.data == "/who" then
      message:reply(line("gateway", "you are " .. name))
      return false
    end
    return line(name, message.data)
  end,
}
