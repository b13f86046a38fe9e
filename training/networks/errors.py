"""What can go wrong between a name, a checkpoint and a network.

name ──UnknownNetworkError──► network ◄──CheckpointMismatchError── checkpoint
"""


class NetworkError(ValueError):
    """Root of the errors of this package."""


class UnknownNetworkError(NetworkError):
    """No network has this name, or it does not take this option."""


class CheckpointMismatchError(NetworkError):
    """The tensors of a checkpoint are not those of the network."""
