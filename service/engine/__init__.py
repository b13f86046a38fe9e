"""images → **logits**, batched on the device: one bounded backlog, lanes that serve it.

`backlog` decides (pure, no clock) · `lane` works (a thread) · `inline` is the short way
for tiny images · `isolation` bisects a failing batch · `models` loads and measures ·
`lanes` replaces what breaks · `engine` builds all of it.
"""
