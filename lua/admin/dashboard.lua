--- dashboard: one page for people, its script and its style; built into the program, and nothing of it comes from elsewhere.
local response = require "tidegate.response"

local dashboard = {}
local POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
  .. "form-action 'none'; frame-ancestors 'none'"

local kinds = { html = "text/html; charset=utf-8", css = "text/css; charset=utf-8", js = "text/javascript; charset=utf-8" }
local files = { ["/"] = "page.html", ["/dashboard.css"] = "style.css", ["/dashboard.js"] = "script.js" }

--- page(path) -> response | nil
function dashboard.page(path)
  local name = files[path]
  if not name then return nil end
  return response.respond(200, require("admin.assets." .. name), {
    ["Content-Type"] = kinds[name:match "%.(%a+)$"], ["Content-Security-Policy"] = POLICY, ["X-Content-Type-Options"] = "nosniff",
    ["Referrer-Policy"] = "no-referrer", ["Cache-Control"] = "no-cache",
  })
end

return dashboard
