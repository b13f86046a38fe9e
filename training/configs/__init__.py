"""TOML → **Config**: runnable claims, and the keys that they may have.

*.toml         a run each: its head says with which command, how long and how well
config         the sections of a run, strict and frozen
task_sections  [transfer], [[negatives]] and [bundle]
"""
