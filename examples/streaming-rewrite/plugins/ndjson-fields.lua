--- ndjson-fields: fields are taken out of each line of a long export. One line is in memory at a time.
return {
  api = 1,
  doc = "Remove fields from each object of newline-delimited JSON.",
  schema = { remove = t.list(t.string()) },
  response = function(ctx, conf)
    ctx.res:transform(function(input, write)
      for line in input:lines() do
        local object = assert(tg.json.decode(line))
        for _, name in ipairs(conf.remove) do object[name] = nil end
        write(tg.json.encode(object) .. "\n")
      end
    end)
  end,
}
