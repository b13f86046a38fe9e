"""What can go wrong between a name, a checkpoint and a network.

name ──UnknownNetworkError──► network ◄──CheckpointMismatchError── checkpoint
"""

from training.errors import CheckpointError, TrainingError


class NetworkError(TrainingError):
    """Root of the errors of this package: a network that cannot be built as asked."""


class UnknownNetworkError(NetworkError):
    """No network has this name, or it does not take this option."""


class CheckpointMismatchError(NetworkError, CheckpointError):
    """The tensors of a checkpoint are not those of the network."""
