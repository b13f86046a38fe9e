"""path → **dataset**: looks at what lies there and picks the reader.

| there lies | read as |
| --- | --- |
| `cifar10-train.zip`, `data_batch_1` or `data_batch_1.bin`, and mates | CIFAR-10 |
| `train-images-idx3-ubyte[.gz]` and its mates | MNIST |
| a `.csv` file, or a folder or archive with one at its top | CSV |
| class folders, with or without split folders above them | ImageFolder, ImageNet |

A folder, a zip or a tar: all the same.
"""

import re
from pathlib import Path

from training.data.cifar import is_cifar, read_cifar
from training.data.dataset import Dataset
from training.data.folder import class_folders, fewest_labels, nfc, read_folder
from training.data.mnist import is_mnist, read_mnist
from training.data.table import IMAGES, read_table
from training.data.tree import FolderTree, Tree, exists, open_tree, tables
from training.errors import DataError

PREFERRED_TABLE = "labels.csv"


def load_dataset(
    path: Path, *, multi_label: bool | None = None, trainable: bool = True
) -> Dataset:
    """Read the data set at `path`; images stay encoded until they are needed.

    Args:
        path: a folder, an archive or a CSV file.
        multi_label: matters for CSV alone; None decides by the rows.
        trainable: refuse what nothing can learn from: without train, with fewer than
            two labels there, or with a label elsewhere that train lacks.

    Raises:
        DataError: nothing readable is there; the message says what was found.
    """
    if path.suffix.lower() == ".csv" and exists(path) and path.is_file():
        tree: Tree = FolderTree(path.parent)
        return read_table(tree, path.name, multi_label=multi_label, trainable=trainable)
    tree = open_tree(path)
    if is_cifar(tree):
        return read_cifar(tree)
    if is_mnist(tree):
        return read_mnist(tree)
    table = _table_name(tree)
    if table is not None:
        try:
            return read_table(tree, table, multi_label=multi_label, trainable=trainable)
        except DataError as error:
            raise DataError(f"{error}{_hidden(tree, table)}") from error
    if not tree.folders:
        raise DataError(
            f"{path} has neither class folders nor a CSV file; it holds "
            f"{', '.join(tree.names[:5])}"
        )
    return read_folder(tree, trainable=trainable)


def _hidden(tree: Tree, table: str) -> str:
    """What to add to an error of a CSV file that lies beside folders of images.

    It may be of something else, and the folders be the labels; not if there is but one,
    or its rows name what is in them.
    """
    folders = class_folders(tree.names) - {IMAGES}
    text = nfc(tree.read(table).decode("utf-8", "replace"))
    named = (re.search(rf"(?<!\w){re.escape(nfc(f))}[/\\]", text) for f in folders)
    if len(folders) < fewest_labels(trainable=True) or any(named):
        return ""
    return (
        f". {tree.where} is read by its CSV file {table}; move that away to have its "
        "folders read as labels"
    )


def _table_name(tree: Tree) -> str | None:
    found = tables(tree)
    if len(found) > 1 and PREFERRED_TABLE not in found:
        raise DataError(
            f"{tree.where} has several CSV files ({', '.join(found)}); name one of "
            f"them, or call it {PREFERRED_TABLE}"
        )
    return PREFERRED_TABLE if PREFERRED_TABLE in found else next(iter(found), None)
