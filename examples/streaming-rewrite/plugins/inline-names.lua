--- inline-names: {{user:ID}} in HTML becomes the user's name. The name is fetched in the middle of the body, and kept for a minute.
return {
  api = 1,
  doc = "Replace {{user:ID}} in HTML by the user's name, while the page streams through.",
  schema = { ttl = t.duration "1m" },
  setup = function(conf)
    local users = tg.upstream "users"
    return tg.cache("inline-names", { ttl = conf.ttl, negative = 5 }, function(id)
      local user, err = users:get_json("/users/" .. id)
      return user and user.name, err
    end)
  end,
  response = function(ctx, _, names)
    if not (ctx.res.headers["Content-Type"] or ""):find("text/html", 1, true) then return end
    ctx.res:transform(function(input, write)
      for text, m in input:matches [[\{\{user:(\d+)\}\}]] do -- also when a chunk ends inside of the braces
        write(text)
        if m then write(names:get(m[1]) or "somebody") end
      end
    end)
  end,
}
