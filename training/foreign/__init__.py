"""a stranger's ONNX file → **bundle**: read, ask, wrap, prove.

source   path → graph in memory, bounded and checked
findings graph → what can be read off it
facts    findings + what the user says → facts, or the questions still open
wrap     graph + facts → the graph of a bundle: pixels in, logits out
verify   original against wrapped, on real photos
bundle   everything → models/NAME/VERSION
"""
