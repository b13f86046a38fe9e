"""data → network → **bundle**: everything that happens offline, with torch.

The six steps, and where they live:

1. data       data
2. network    networks
3. train      configs, loop; augmentation, objectives, optimizers; transfer, pretrained
4. evaluate   evaluation, reports
5. optimize   graphs, quantization
6. save       rules, bundling

commands are their command lines, foreign takes a stranger's ONNX file through the last
three, cifar10_table fills one table. labels has names that several of them need.
"""
