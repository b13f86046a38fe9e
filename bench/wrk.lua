-- Rotates over whole requests kept in files, and prints what wrk measured as one JSON line.
-- Arguments: path, content type, folder, number of files (0.body, 1.body, ...).

local requests = {}
local turn = 0

function init(arguments)
  local path, content_type, folder, count = arguments[1], arguments[2], arguments[3], tonumber(arguments[4])
  for number = 0, count - 1 do
    local file = assert(io.open(folder .. "/" .. number .. ".body", "rb"))
    local body = file:read("*a")
    file:close()
    requests[number + 1] = wrk.format("POST", path, { ["Content-Type"] = content_type }, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p95_us": %d, "p99_us": %d, "worst_us": %d, '
      .. '"connect_errors": %d, "read_errors": %d, "write_errors": %d, "timeouts": %d, "bad_statuses": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    latency.max, errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
