"""images → **logits**, batched on the device: one bounded backlog, lanes that serve it.

engine       builds all of it; HTTP asks it alone
models       bundles → loaded, proven and measured
arrangement  lanes x threads x batch, as measured here
buckets      batches of a few padded sizes, for CUDA

ticket       one waiting image
line         the tickets of one model: their order, their cost, and refusals
backlog      decides which go next: the whole policy, without a thread or a clock
lane         works: a thread that decodes and runs what it takes
lanes        opens the lanes, and replaces those that die or hang
decoding     a ticket's bytes → its pixels, or its own error
ahead        the same in threads before the backlog, for a GPU
run          a batch of decoded tickets → what each sender gets
isolation    bisects a batch that fails
inline       serves tiny images for tiny models on the event loop, without a lane
"""
