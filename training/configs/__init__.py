"""TOML → **Config**: runnable claims, and the keys that they may have.

*.toml          a run each: its head says with which command, how long and how well
config          a run of those sections, strict and frozen
sections        [data], [network], [[optimizer]] and [schedule]
train_sections  [augment], [train], [selection], [loss] and [evaluate]
task_sections   [transfer], [[negatives]] and [bundle]
reference       the keys of all of them → docs/config.md
"""
