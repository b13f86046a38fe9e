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

import os

# A thread of libgomp, which computes for torch, spins for milliseconds before it sleeps
# when it has to wait for the others. Where other processes want the cores too, such as
# those that decode, a thread that computes then waits for one that spins. Read when
# torch is loaded, so it is said here, before anything loads it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
