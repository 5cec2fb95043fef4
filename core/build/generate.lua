--- generate: build files from abi.h and lua/, run by the Makefile with LuaJIT.
--   luajit core/build/generate.lua text  core/abi.h OUT     abi.h as the text that ffi.cdef gets
--   luajit core/build/generate.lua check core/abi.h OUT     assertions that both compilers see the same structs
--   luajit core/build/generate.lua embed OUT FILE...        the files of lua/
local function read(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "*a"
  f:close()
  return text
end

local function write(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end

-- A header with those that it includes by name in place.
local function whole(path)
  return (read(path):gsub('\n#include "([^"]+)"', function(name) return "\n" .. read((path:gsub("[^/]+$", name))) end))
end

-- Comments, preprocessor lines and the visibility macro are for the C compiler alone.
local function cdef_text(path)
  local text = whole(path):gsub("/%*.-%*/", ""):gsub("\n#[^\n]*", "\n"):gsub("TG_ABI ", "")
  return (text:gsub("\n%s*\n+", "\n"))
end

local function as_bytes(text)
  local rows, row = {}, {}
  for i = 1, #text do
    row[#row + 1] = text:byte(i)
    if #row == 32 then
      rows[#rows + 1] = table.concat(row, ",") .. ","
      row = {}
    end
  end
  rows[#rows + 1] = table.concat(row, ",") .. (#row > 0 and "," or "") .. "0"
  return table.concat(rows, "\n")
end

local command = {}

function command.text(header, out)
  write(out, '#include "vm/embedded.h"\nconst char tg_abi_text[] = {\n' .. as_bytes(cdef_text(header)) .. "\n};\n")
end

function command.check(header, out)
  local ffi = require "ffi"
  local text = cdef_text(header)
  ffi.cdef(text)
  local lines = { '#include <stddef.h>\n#include "abi.h"\n' }
  for name, body in text:gmatch "struct (tg_[%w_]+) (%b{});" do
    lines[#lines + 1] = ("_Static_assert(sizeof(struct %s) == %d, \"size of %s\");"):format(name, ffi.sizeof("struct " .. name), name)
    for declaration in body:sub(2, -2):gmatch "([^;]*%S);" do
      -- A form that is not understood would be left out of the check in silence.
      local field = declaration:match "([%w_]+)$" or declaration:match "([%w_]+)%[[^%]]*%]$"
      if not field or declaration:find "[,{}:]" then
        error(("struct %s: found %q, expected one plain field"):format(name, declaration), 0)
      end
      lines[#lines + 1] = ("_Static_assert(offsetof(struct %s, %s) == %d, \"%s.%s\");"):format(
        name, field, ffi.offsetof("struct " .. name, field), name, field)
    end
  end
  -- A reference to each function: one that is declared and not defined does not link.
  lines[#lines + 1] = "void *const tg_abi_functions[] = {"
  for name in text:gmatch "(tg_abi_[%w_]+)%(" do lines[#lines + 1] = ("    (void *)(uintptr_t)%s,"):format(name) end
  lines[#lines + 1] = "};\n"
  local all = table.concat(lines, "\n"):gsub("void %*const", "extern void *const tg_abi_functions[];\nvoid *const", 1)
  write(out, all)
end

function command.embed(out, ...)
  local files = { ... }
  table.sort(files)
  local parts, rows = { '#include "vm/embedded.h"\n' }, {}
  for i, path in ipairs(files) do
    local text = read(path)
    if not path:find "%.lua$" then text = ("return %q"):format(text) end -- of a page: a module that is its text
    local name = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/", "."):gsub("%.init$", "")
    parts[#parts + 1] = ("static const unsigned char text_%d[] = {\n%s\n};\n"):format(i, as_bytes(text))
    rows[#rows + 1] = ('    {"%s", "%s", text_%d, %d},'):format(name, path, i, #text)
  end
  parts[#parts + 1] = "const struct tg_embedded tg_embedded[] = {\n" .. table.concat(rows, "\n") .. "\n    {0},\n};\n"
  write(out, table.concat(parts))
end

assert(command[arg[1]], "usage: generate.lua text|check|embed ...")(select(2, unpack(arg)))
