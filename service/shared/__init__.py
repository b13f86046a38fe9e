"""front-ends ⇄ **one engine**: several HTTP processes, one device.

front     the engine that a front-end has: decodes here, runs there
underway  who has which slot
slots     the shared memory in which pixels go there and scores come back
wire      the small messages beside it
host      what serves them beside the real engine

Meant for a GPU, where each process with an engine of its own would need a context and
could not share a batch.
"""
