--- diff: what is different between two texts, line by line, as people know it: the longest common subsequence by Myers' O(ND) algorithm
-- (An O(ND) Difference Algorithm and Its Variations, 1986).
local diff = {}
local COST_MAX, CONTEXT = 2000, 3 -- lines that differ, before all is taken for different; lines shown around a change

local function lines_of(text)
  local list = {}
  for line in ((text:sub(-1) == "\n" or text == "") and text or text .. "\n"):gmatch "(.-)\n" do list[#list + 1] = line end
  return list
end

-- The furthest x on each diagonal, for each cost; nil: they differ too much.
local function search(a, b)
  local n, m, trace, v = #a, #b, {}, { [1] = 0 }
  for d = 0, math.min(n + m, COST_MAX) do
    local copy = {}
    for k, x in pairs(v) do copy[k] = x end
    trace[d] = copy
    for k = -d, d, 2 do
      local x = (k == -d or k ~= d and v[k - 1] < v[k + 1]) and v[k + 1] or v[k - 1] + 1
      while x < n and x - k < m and a[x + 1] == b[x - k + 1] do x = x + 1 end
      v[k] = x
      if x >= n and x - k >= m then return trace, d end
    end
  end
  return nil
end

-- The way back: a list of { mark, line }, last first.
local function walk(a, b, trace, d)
  local x, y, script = #a, #b, {}
  for cost = d, 0, -1 do
    local v, k = trace[cost], x - y
    local before = (k == -cost or k ~= cost and v[k - 1] < v[k + 1]) and k + 1 or k - 1
    local from_x = cost == 0 and 0 or v[before]
    local from_y = cost == 0 and 0 or from_x - before
    while x > from_x and y > from_y do
      script[#script + 1] = { " ", a[x] }
      x, y = x - 1, y - 1
    end
    if cost > 0 and x > from_x then
      script[#script + 1] = { "-", a[x] }
    elseif cost > 0 then
      script[#script + 1] = { "+", b[y] }
    end
    x, y = from_x, from_y
  end
  return script
end

local function script_of(a, b)
  local trace, d = search(a, b)
  if trace then return walk(a, b, trace, d) end
  local script = {}
  for i = #b, 1, -1 do script[#script + 1] = { "+", b[i] } end
  for i = #a, 1, -1 do script[#script + 1] = { "-", a[i] } end
  return script
end

-- All lines as a list of { mark, line } in order, mark " ", "-" or "+", and by index which of them are near a change.
local function marked(before, after)
  local reversed, all, near = script_of(lines_of(before), lines_of(after)), {}, {}
  for i = #reversed, 1, -1 do all[#all + 1] = reversed[i] end
  for i, entry in ipairs(all) do
    if entry[1] ~= " " then
      for k = i - CONTEXT, i + CONTEXT do near[k] = true end
    end
  end
  return all, near
end

-- "12,3": where a hunk begins in one of the texts, and how many lines of it are shown. One of none begins at the line before it.
local function range(first, count)
  return count == 1 and tostring(first) or ("%d,%d"):format(count == 0 and first - 1 or first, count)
end

local function hunk_text(hunk)
  return ("@@ -%s +%s @@\n"):format(range(hunk.old, hunk.olds), range(hunk.new, hunk.news)) .. table.concat(hunk)
end

--- text(name, before, after) -> a unified diff, "" when they are the same; nil is a file that is not there
function diff.text(name, before, after)
  if before == after then return "" end
  local all, near = marked(before or "", after or "")
  local parts, hunk, old, new = {}, nil, 1, 1
  for i, entry in ipairs(all) do
    local mark = entry[1]
    if near[i] then
      hunk = hunk or { old = old, new = new, olds = 0, news = 0 }
      hunk[#hunk + 1] = mark .. entry[2] .. "\n"
      hunk.olds, hunk.news = hunk.olds + (mark == "+" and 0 or 1), hunk.news + (mark == "-" and 0 or 1)
    elseif hunk then
      parts[#parts + 1], hunk = hunk_text(hunk), nil
    end
    old, new = old + (mark == "+" and 0 or 1), new + (mark == "-" and 0 or 1)
  end
  if hunk then parts[#parts + 1] = hunk_text(hunk) end
  return ("--- %s\n+++ %s\n"):format(before and name or "/dev/null", after and name or "/dev/null") .. table.concat(parts)
end

--- files(before, after) -> text of all that differs between two sets of files, by name
function diff.files(before, after)
  local names, seen = {}, {}
  for _, set in ipairs { before, after } do
    for name in pairs(set) do
      if not seen[name] then names[#names + 1] = name end
      seen[name] = true
    end
  end
  table.sort(names)
  local parts = {}
  for _, name in ipairs(names) do parts[#parts + 1] = diff.text(name:gsub("^file:", ""):gsub("^plugin:", "plugin "), before[name], after[name]) end
  return table.concat(parts)
end

return diff
