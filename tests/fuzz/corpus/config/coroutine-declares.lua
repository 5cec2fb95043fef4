coroutine.wrap(function() listen { port = 8080 } end)()
coroutine.wrap(function() listen(1) end)()
