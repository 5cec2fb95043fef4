std = "luajit"
max_line_length = 150
unused_args = true
files["plugins/*.lua"] = { read_globals = { "tg", "t" } }
files["plugins/*.spec.lua"] = { read_globals = { "tg", "t", "describe", "it", "expect", "test" } }
files["tests/unit/lua/*.spec.lua"] = { read_globals = { "tg", "t", "describe", "it", "expect", "test" } }
files["examples/**/plugins/*.spec.lua"] = { read_globals = { "tg", "t", "describe", "it", "expect", "test" } }
files["examples/**/plugins/*.lua"] = { read_globals = { "tg", "t" } }
files["examples/**/*.lua"] = {
  globals = { "api" },
  read_globals = { "tg", "t", "listen", "upstream", "consumer", "dict", "redis", "route", "use", "defaults", "log", "include", "secret", "http", "admin", "canary", "explain", "vault" },
}
