--- cells: what all workers know of peers, upstreams and routes, in shared memory; and who judges it when there is something to hear.
local abi = require "abi"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local cells = {}
local all = {} -- of this generation: index -> cell
local started = false
local judges = {} -- index of a cell -> list of objects with judge()
local queues = {} -- all objects in which requests may wait

local CELLS_MAX = 16384 -- TG_CELLS_MAX: all cells in which requests wait
local KEEP_EVERY = 30 -- seconds

--- want(key) -> the cell of this key: "u:NAME", "p:NAME:HOST:PORT" or "r:NAME" | nil while a configuration is validated.
function cells.want(key)
  if abi.validating then return nil end
  local cell = C.tg_abi_cell(key, #key)
  if cell == nil then error(("%s: there are too many upstreams, peers and routes, or its name is too long"):format(key:sub(3)), 0) end
  all[cell.index] = cell
  if started then C.tg_abi_cell_keep(cell, 1) end
  return cell
end

--- drop(cell): nobody counts in it any more.
function cells.drop(cell)
  all[cell.index], judges[cell.index] = nil, nil
  C.tg_abi_cell_keep(cell, 0)
end

--- on_news(cell, object): object:judge() is called in a worker in which something has happened to the cell.
function cells.on_news(cell, object)
  if not cell then return end
  local list = judges[cell.index] or {}
  list[#list + 1] = object
  judges[cell.index] = list
end

--- add_queue(queue): queue:serve() is called when there may be room in any of them.
function cells.add_queue(queue)
  queues[#queues + 1] = queue
end

local function hear(index)
  if index == CELLS_MAX then
    for _, queue in ipairs(queues) do queue:serve() end
    return
  end
  for _, object in ipairs(judges[index] or {}) do object:judge() end
end

local function keep()
  for _, cell in pairs(all) do C.tg_abi_cell_keep(cell, 1) end
end

--- start(): the generation is current.
function cells.start()
  if next(all) == nil then return end
  started = true
  keep()
  task.start(abi.TASK_SERVICE, function()
    while C.tg_abi_cell_listen() ~= 0 do task.wait() end -- on trial: the current generation hears of them
    keep()
    while true do
      local index = C.tg_abi_cell_next()
      while index >= 0 do
        hear(index)
        index = C.tg_abi_cell_next()
      end
      task.wait()
    end
  end)
  task.start(abi.TASK_SERVICE, function()
    while true do
      task.sleep(KEEP_EVERY)
      keep()
    end
  end)
end

--- now() -> seconds; what all times in cells are compared with.
function cells.now() return vm.monotonic end

return cells
