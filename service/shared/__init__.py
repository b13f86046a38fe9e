"""front-ends ⇄ **one engine**: several HTTP processes, one device.

`slots` is the shared memory in which pixels go there and scores come back · `wire` the
small messages beside it · `underway` who has which slot · `front` the engine that a
front-end has · `host` what serves it beside the real one. Meant for a GPU, where each
process with an engine of its own would need a context and could not share a batch.
"""
