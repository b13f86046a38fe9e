"""path → **splits**: data sets as published, and what a trainer makes of them."""

from training.data.dataset import ArraySamples, Dataset, FileSamples, Samples, Split
from training.data.source import load_dataset
from training.data.splits import Splits, cut

__all__ = [
    "ArraySamples",
    "Dataset",
    "FileSamples",
    "Samples",
    "Split",
    "Splits",
    "cut",
    "load_dataset",
]
