"""The service: bundles behind HTTP. Never imports torch, training or onnx.

A request's way, told in `docs/architecture.md`, goes down this list:

from settings to a process
settings    environment → settings, read once
bundles     settings → the bundles to serve
app         settings, engine → application: builds all that answers HTTP
server      application → process, with a drain before it stops
files       soft limit → as many open files as may be
door        connections → as many as there is room for
watchdog    ends a process whose event loop stands still
serving     what all routes share, from start to drain
logs        events → lines
commands    `linnaeus serve`, and the others that need no torch

from a connection to an answer: HTTP
connection  socket → request, bounded in bytes and in time
outgoing    answer → socket, whose client must read it and hears it
protocol    each request on its way: the fast path, or ASGI
heads       a head that came before → what it says
fast_path   a plain image → answer, without ASGI
routes      the way of everything else, a module a resource
exchange    request ⇄ response: one id, one line of log, one set of counters
bodies      socket → body, bounded too
multipart   body → parts of a form
images      body → image bytes, of one image or many
parameters  query string → parameters, every one known
catalog     name, version → catalog entry of a loaded model
answers     answer → body
responses   body → response
jsons       values → JSON
oip         the same in the Open Inference Protocol

asking the engine
contract    what HTTP asks of an engine, and what comes back
asking      images → outcomes, for a task that waits
disconnect  a client that leaves meanwhile: its request is cancelled
engine      images → logits: the queue and the lanes
shared      one engine for several processes

several processes on one port
leader      starts the others, and shares out the work
crew        starts them again when they die or hang
order       what a member is started with
member      one of them
address     host and port → a socket, held for us alone; one more listener on it
neighbors   the metrics and the readiness of all → one

what is told of it
errors      what can go wrong, one class an arrow
problems    error → the one shape of every error
metrics     what Prometheus scrapes
shapes      the shapes of every body
openapi     routes → OpenAPI, with `examples` that are true
headers     OpenAPI responses → with headers
examples    real bytes and real answers
page        the page to try it, and its documentation
"""
