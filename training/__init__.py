"""data → network → **bundle**: everything that happens offline, with torch.

The six steps, and where they live:

1. data       data
2. network    networks
3. train      configs, loop; augmentation, objectives, optimizers; transfer, pretrained
4. evaluate   evaluation, reports
5. optimize   graphs, quantization
6. save       rules, bundling

And around them:

commands       their command lines
foreign        a stranger's ONNX file → the last three steps
cifar10_table  nine networks → one table
labels         names that several of them need
provenance     the circumstances of a figure
files          content → file, whole or not at all
errors         what can go wrong, one class an arrow
"""
