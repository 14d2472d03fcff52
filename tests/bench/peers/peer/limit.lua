-- Two limiters in Redis for nginx, on pooled connections: what is commonly written for this, and no more than it needs.
local M = {}
local host, port = "@HOST@", @PORT@

local function command(...)
  local words = {...}
  local parts = {"*", #words, "\r\n"}
  for i = 1, #words do
    local word = tostring(words[i])
    parts[#parts + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
  end
  return table.concat(parts)
end

local function reply(socket)
  local line, err = socket:receive("*l")
  if not line then return nil, err end
  if line:sub(1, 1) == "-" then return nil, line end
  return tonumber(line:sub(2))
end

local function connect()
  local socket = ngx.socket.tcp()
  socket:settimeouts(50, 50, 100)
  local ok, err = socket:connect(host, port)
  if not ok then return nil, err end
  return socket
end

-- A window of a second: INCR and EXPIRE, sent together.
function M.window(client, most)
  local socket, err = connect()
  if not socket then return nil, err end
  local key = "w:" .. client .. ":" .. math.floor(ngx.now())
  local ok, err = socket:send(command("INCR", key) .. command("EXPIRE", key, 2))
  if not ok then return nil, err end
  local count, err = reply(socket)
  if not count then return nil, err end
  reply(socket)
  socket:setkeepalive(10000, 128)
  return count <= most
end

local SCRIPT = [[
local t = redis.call('TIME'); local now = t[1] * 1000 + t[2] / 1000
local rate = tonumber(ARGV[1]); local most = tonumber(ARGV[2])
local h = redis.call('HMGET', KEYS[1], 'v', 't')
local v = tonumber(h[1]) or most; local last = tonumber(h[2]) or now
v = math.min(most, v + (now - last) * rate / 1000)
local ok = 0
if v >= 1 then v = v - 1; ok = 1 end
redis.call('HSET', KEYS[1], 'v', v, 't', now); redis.call('PEXPIRE', KEYS[1], 60000)
return ok ]]
local digest = ngx.sha1_bin(SCRIPT):gsub(".", function(c) return string.format("%02x", c:byte()) end)

-- A token bucket: a script, by Redis' clock.
function M.bucket(client, rate, most)
  local socket, err = connect()
  if not socket then return nil, err end
  socket:send(command("EVALSHA", digest, 1, "b:" .. client, rate, most))
  local admitted, err = reply(socket)
  if err and err:find("NOSCRIPT") then
    socket:send(command("EVAL", SCRIPT, 1, "b:" .. client, rate, most))
    admitted, err = reply(socket)
  end
  if admitted == nil then return nil, err end
  socket:setkeepalive(10000, 128)
  return admitted == 1
end

return M
