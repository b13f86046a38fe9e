-- Rotates over whole requests kept in files, and prints what wrk measured as one JSON line.
-- Arguments: path, content type, folder, number of files (0.body, 1.body, ...), and whether
-- each thread has one connection only ("apart").

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } linnaeus_time;
  int clock_gettime(int clock, linnaeus_time *now);
]]

local CLOCK_MONOTONIC = 1
local requests = {}
local turn = 0
local apart = false
local now = ffi.new("linnaeus_time")
local began_us = nil -- when the connection of this thread sent its last request

-- global, so that `done` can get them: each request of this thread, and when the first was sent
took_us = {}
first_us = 0
asked_before = 0 -- how many requests wrk asks for before it starts: one, of the first thread

local threads = {} -- only where `setup` and `done` run

function setup(thread)
  thread:set("asked_before", #threads == 0 and 1 or 0)
  threads[#threads + 1] = thread
end

function init(arguments)
  local path, content_type, folder, count = arguments[1], arguments[2], arguments[3], tonumber(arguments[4])
  apart = arguments[5] == "apart"
  for number = 0, count - 1 do
    local file = assert(io.open(folder .. "/" .. number .. ".body", "rb"))
    local body = file:read("*a")
    file:close()
    requests[number + 1] = wrk.format("POST", path, { ["Content-Type"] = content_type }, body)
  end
end

local function now_us()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, now)
  return tonumber(now.seconds) * 1e6 + tonumber(now.nanoseconds) / 1e3
end

-- A connection asks for its next request when the last one has been answered, so one that
-- is alone in its thread has its times in the instants of these calls.
local function note()
  if asked_before > 0 then
    asked_before = asked_before - 1
    return
  end
  local instant_us = now_us()
  if began_us then took_us[#took_us + 1] = instant_us - began_us else first_us = instant_us end
  began_us = instant_us
end

function request()
  if apart then note() end
  turn = turn % #requests + 1
  return requests[turn]
end

local function listed(numbers)
  local words = {}
  for index, number in ipairs(numbers) do words[index] = string.format("%d", number) end
  return "[" .. table.concat(words, ", ") .. "]"
end

-- wrk starts one thread after another, each when it has read all files, and its clock after
-- the last of them; but it counts what the first threads got until then.
local function count_early(ended_us, all_took_us, start_us)
  local early = 0
  for _, took in ipairs(all_took_us) do
    ended_us = ended_us + took
    if ended_us >= start_us then break end
    early = early + 1
  end
  return early
end

function done(summary, latency, _)
  local errors = summary.errors
  local start_us = now_us() - summary.duration
  local connections, early = {}, 0
  for index, thread in ipairs(threads) do
    local each = thread:get("took_us")
    early = early + count_early(thread:get("first_us"), each, start_us)
    connections[index] = listed(each)
  end
  io.write(string.format(
    '{"requests": %d, "early": %d, "duration_us": %d, "p50_us": %d, "p95_us": %d, "p99_us": %d, "worst_us": %d, '
      .. '"connect_errors": %d, "read_errors": %d, "write_errors": %d, "timeouts": %d, "bad_statuses": %d, ',
    summary.requests, early, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    latency.max, errors.connect, errors.read, errors.write, errors.timeout, errors.status))
  io.write('"took_us": [' .. table.concat(connections, ", ") .. "]}\n")
end
