"""published weights → **networks and a bundle** that know ImageNet.

backbone    name → pretrained network, from an installed package
pretrained  what was published, exported and shrunk
imagenet    graphs + measurements → models/imagenet
photos      images for ranges, gates and golden examples
"""
