"""a network with its graphs → **bundle**: the last of the six steps.

bundling      fp32 graph + splits → bundle: rules, smaller graphs, golden, figures, card
from_run      a finished run → bundle
next_version  a bundle + data → the same model with smaller graphs
"""
