"""`linnaeus …` → **the six steps**: a module a command; it reads options and calls.

data        what is in a data set, and what is wrong with it
networks    every architecture → a table
train       config, data → run folder
export      finished run → bundle
evaluate    bundle, data → figures, plots and mistakes
optimize    bundle, data → next version with smaller graphs
report      run, evaluation or bundle → one HTML page
pretrained  published weights → bundle
import_     a stranger's ONNX file → bundle
progress    long work → lines on stderr; of several commands
"""
