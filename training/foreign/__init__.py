"""a stranger's ONNX file → **bundle**: read, ask, wrap, prove.

source     path → graph in memory, bounded and checked
findings   graph → what can be read off it
labels     label file → labels, in the order of the outputs
answers    options and presets → what the user says
questions  findings + answers → what is still to be said
facts      findings + answers → facts, if nothing is open
batch      a graph of a fixed batch → one of any batch
wrap       graph + facts → the graph of a bundle: pixels in, logits out
verify     original against wrapped, on real photos
bundle     everything → models/NAME/VERSION
"""
