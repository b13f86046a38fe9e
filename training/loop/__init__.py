"""config + data → **trained network**: the training itself.

runs               a config file and a folder: everything around one training
loop               epochs, on one screen
suited             does the data suit the config? asked before the first step
start              what stands before the first step: fresh, or from a checkpoint
step               a batch: augment, forward, loss, backward, update
selection          a batch → its hardest images, found by a small network beside
validation         forward passes without augmentation
state, checkpoint  all that a run goes on from, and the file of it
lock               a run's folder, which one training at a time writes to
origin             which data it was, so that a run goes on with no other
budget             a few timed steps → arithmetic and number of epochs
timing             seconds of a training step, in each arithmetic
pace               what steps really take → the rest of a budget, planned again
arithmetic         precision, normalization, memory, seeds
convolutions       of 1x1, and of 3x3 on few pixels, as products of matrices
distributed        several processes that train one network
log, curves, bar   what is written down and shown on the way
rate_finder        where the loss falls fastest
"""
