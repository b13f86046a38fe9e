"""path → **splits**: data sets as published, and what a trainer makes of them.

source             looks at what lies there and picks the reader
folder, table      class folders, CSV → dataset
rows               CSV → cells by column
cifar, mnist       files as published → dataset
tree               folder, tar or zip → named files, read as bytes
archives, bounds   members read in place, and which of them are admitted
dataset            what every reader returns and every trainer takes
splits, stratify   dataset → train, validation, calibration and test
scenes             photos that stay on one side of a cut
negatives          a binary data set with more that is negative
relabel            many labels → two
check, duplicates  dataset → what is wrong with it, and what is in it twice
batches, pieces    split → batches on the device; as many as run well at once
"""

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
