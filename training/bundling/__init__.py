"""a network with its graphs → **bundle**: the last of the six steps.

bundling      fp32 graph + splits → bundle, on one screen
draft         manifest and golden examples, still without figures
figures       evaluated as it will be loaded, then written with its figures
record        what docs/results keeps of a training and its bundle
from_run      a finished run → bundle
labels        ids as in the data, names for people
next_version  a bundle + data → the same model with smaller graphs
"""
