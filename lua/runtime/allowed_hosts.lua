--- allowed_hosts: the private hosts that tg.http may reach, as `http { allow }` names them.
local allowed_hosts = {}

--- new(list of hosts and "*.names") -> allowed(host): whether a URL may lead to a private address of this name
function allowed_hosts.new(list)
  local exact, suffixes = {}, {}
  for _, host in ipairs(list) do
    host = host:lower()
    if host:sub(1, 1) == "*" then suffixes[#suffixes + 1] = host:sub(2) else exact[host] = true end
  end
  return function(host)
    if exact[host] then return true end
    for _, suffix in ipairs(suffixes) do
      if #host > #suffix and host:sub(-#suffix) == suffix then return true end
    end
    return false
  end
end

return allowed_hosts
