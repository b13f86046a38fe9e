"""network → **graph**: ONNX files, written, read and looked into.

graph       bytes ↔ graph, and what is asked of it
export      torch → one ONNX file that eats pixels
class_maps  graph → graph that can say where it looked
views       network → network of several views of each image
detector    network of K classes → detector of some of them
"""
