"""published weights → **networks and a bundle** that know ImageNet.

published      name → network with published weights, from an installed package
photos         images for ranges, gates and golden examples
shrunk         network + photos → graphs, shrunk and measured
imagenet       graphs → models/imagenet
imagenet_card  what its card says
"""
