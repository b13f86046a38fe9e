"""What can go wrong between data and a checkpoint, one class an arrow.

data ──DataError──► dataset      config ──ConfigError──► plan
checkpoint ──CheckpointError──► network      step ──DivergedError──► weights
batch ──DeviceFullError──► step
result ──DiskError──► file                   answers ──AnswerError──► bundle

Each message says what was found, where, and what is allowed.
"""


class TrainingError(Exception):
    """Root of every error that training raises on purpose."""


class DataError(TrainingError):
    """The data is missing, damaged, or not laid out in a way that is understood."""


class ConfigError(TrainingError):
    """A config has an unknown key, a value out of range, or contradicts itself."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged, of another network, or cannot be written."""


class DiskError(TrainingError):
    """A file cannot be written; what stood in its place is still there."""


class AnswerError(TrainingError):
    """What was said of a foreign graph cannot be read, or not be true of it."""


class DivergedError(TrainingError):
    """The loss is not a number any more; the last good checkpoint is untouched."""


class DeviceFullError(TrainingError):
    """A step needs more memory than the device has; a smaller batch may fit."""
