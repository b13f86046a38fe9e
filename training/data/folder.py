"""class folders → **dataset**: ImageFolder trees and the layout of ImageNet.

    train/cat/1.jpg  train/dog/2.jpg  validation/cat/3.jpg  test/dog/4.jpg
    cat/1.jpg        dog/2.jpg                                (no splits: all is train)

A folder `train` that holds images itself, beside others that do, is a label too.
Folder names are the labels, sorted. Names of the form `apple-granny-smith` carry their
group before the first hyphen, when two of them share it; it counts for a fine-grained
task alone. ImageNet's folders are wnids; a `LOC_synset_mapping.txt` beside the splits
gives them names.
"""

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from classifier.names import SUFFIXES, is_image_name
from classifier.texts import MAX_LABEL_CHARACTERS, has_control
from training.data.dataset import Dataset, FileSamples, Split, first_of
from training.data.tree import SPLIT_FOLDERS, Tree, name_of, refuse_links
from training.errors import DataError

LOGGER = logging.getLogger(__name__)

SYNSETS = "LOC_synset_mapping.txt"
WNID = re.compile(r"(n\d{8})(?: |$)")  # and perhaps the names of the synset

# Without them Persian and Hindi, and many emoji, would be written wrong.
JOINERS = ("\N{ZERO WIDTH NON-JOINER}", "\N{ZERO WIDTH JOINER}")

LABELLED = 2  # parts of LABEL/IMAGE; with a split before them there are three

Members = dict[str, dict[str, list[str]]]  # split → label → file names
Layout = tuple[dict[str, str | None], bool]  # what `_splits` finds


def read_folder(tree: Tree, *, trainable: bool = True) -> Dataset:
    """Read class folders, with or without split folders above them.

    Raises:
        DataError: a class folder is empty or a link, images lie outside of class
            folders or of the splits, a label is unclear, or there is none; where
            it must be trainable, train is missing or has fewer than two labels, or a
            split has one that train lacks.
    """
    refuse_links(tree)
    layout = _splits(tree)
    members, ignored = _members(tree, layout)
    if ignored:
        LOGGER.info(
            "%s: ignored %d file(s), such as %s", tree.where, len(ignored), ignored[0]
        )
    if not members:
        raise DataError(
            f"{tree.where} holds no images, but {first_of(tree.names)}; the suffixes "
            f"of images are {', '.join(sorted(SUFFIXES))}"
        )
    if trainable and "train" not in members:
        raise DataError(
            f"{tree.where} has the split folders {sorted(members)} but no train folder"
        )
    _refuse_empty(tree, members, layout)
    refuse_unclear(tree.where, set().union(*members.values()))
    seen = members["train"] if trainable else set().union(*members.values())
    labels = tuple(sorted(seen))
    if len(labels) < fewest_labels(trainable):
        raise DataError(
            f"{tree.where} has {len(labels)} class folder(s) {list(labels)} with "
            f"images; at least {fewest_labels(trainable)} must be there"
        )
    splits = {
        name: _split(tree, name, members[name], labels) for name in sorted(members)
    }
    return Dataset(
        name=name_of(tree.where),
        label_names=_names(tree, labels),
        groups=label_groups(labels),
        parts=splits,
        ignored=tuple(ignored),
    )


def fewest_labels(trainable: bool) -> int:
    """Nothing is told apart from one label, but a classifier can be measured on it."""
    return 2 if trainable else 1


def class_folders(names: Iterable[str]) -> frozenset[str]:
    """Folders of images, at the top or in a split, that could be their labels."""
    folders = [name.split("/")[:-1] for name in names if is_image_name(name)]
    inside = [f[1:] if f and f[0].lower() in SPLIT_FOLDERS else f for f in folders]
    return frozenset(folder[0] for folder in inside if folder)


def nfc(name: str) -> str:
    """With each accent in one character with its letter, however it was written."""
    return unicodedata.normalize("NFC", name)


def refuse_unclear(where: Path, labels: Iterable[str]) -> None:
    """Refuse labels that cannot be read, or not be told from one another.

    `é` is one character, or `e` and an accent: macOS writes names in the second way
    (NFD), nearly everything else in the first.

    Raises:
        DataError: naming the first of them.
    """
    written: set[str] = set()
    for label in sorted(labels):
        composed = nfc(label)
        if composed in written:
            raise DataError(
                f"{where}: label {composed!r} is written in two ways that differ only "
                "in Unicode normalization (NFC and NFD); write it in one"
            )
        written.add(composed)
        if has_control(label):
            raise DataError(
                f"{where}: label {label!r} has a control character, such as a tab or "
                "the end of a line, which no bundle can hold"
            )
        if len(label) > MAX_LABEL_CHARACTERS:
            raise DataError(
                f"{where}: label {label[:40]!r}… has {len(label)} characters; a bundle "
                f"holds at most {MAX_LABEL_CHARACTERS}"
            )
        if label != label.strip():
            raise DataError(
                f"{where}: label {label!r} begins or ends with a blank, which cannot "
                "be seen; write it without"
            )
        if _hides_something(label):
            raise DataError(
                f"{where}: label {label!r} has a character that cannot be seen, "
                "such as a zero-width space; write it without"
            )


def _hides_something(label: str) -> bool:
    """Whether there are format characters that join no letters or signs."""
    kinds = [unicodedata.category(letter) for letter in f" {label} "]  # blanks: ends
    plain = [kind[0] in "LMS" for kind in kinds]
    return any(
        kinds[n] == "Cf" and not (letter in JOINERS and plain[n - 1] and plain[n + 1])
        for n, letter in enumerate(label, 1)
    )


def label_groups(labels: tuple[str, ...]) -> tuple[str | None, ...]:
    """`apple-fuji`, `apple-gala`, `peach` → apple, apple, peach; else None for all.

    Only where two labels share what stands before the hyphen, and not all of them do.
    """
    groups = tuple(label.split("-", 1)[0] or label for label in labels)
    shared = 1 < len(set(groups)) < len(labels)
    return groups if shared else (None,) * len(labels)


def wnid_of(label: str) -> str | None:
    """`n01440764 tench, Tinca tinca` → n01440764; None where no wnid begins it."""
    found = WNID.match(label)
    return found and found[1]


def _members(tree: Tree, layout: Layout) -> tuple[Members, list[str]]:
    split_of, with_splits = layout
    members: Members = defaultdict(lambda: defaultdict(list))
    ignored = []
    for name in tree.names:
        parts = name.split("/")
        split = split_of.get(parts[0]) if with_splits else "train"
        label_at = 1 if with_splits else 0
        image = is_image_name(name)
        if image and split is None and len(parts) > 1:
            raise DataError(
                f"{tree.where / parts[0]} has images and is no split folder; "
                f"allowed are {', '.join(SPLIT_FOLDERS)}. If one of these is a label, "
                "put all class folders into a folder train"
            )
        if split is None or not image:
            ignored.append(name)
            continue
        if len(parts) <= label_at + 1:
            raise DataError(
                f"{tree.where / name} lies outside of a class folder; expected "
                f"{'SPLIT/' if with_splits else ''}LABEL/{parts[-1]}"
            )
        members[split][parts[label_at]].append(name)
    return members, ignored


def _splits(tree: Tree) -> Layout:
    """Top folder → split, by its name, and whether there are splits at all.

    There are none where no folder of such a name has class folders with images, and
    others have images: then it is a label, like the `train` among `bus` and `car`.
    """
    tops = {name.split("/", 1)[0] for name in tree.folders}
    split_of = {top: SPLIT_FOLDERS.get(top.lower()) for top in tops}
    images = [name.split("/") for name in tree.names if is_image_name(name)]
    deep = any(split_of.get(parts[0]) and len(parts) > LABELLED for parts in images)
    others = any(len(parts) > 1 and not split_of.get(parts[0]) for parts in images)
    return split_of, any(split_of.values()) and (deep or not others)


def _refuse_empty(tree: Tree, members: Members, layout: Layout) -> None:
    split_of, with_splits = layout
    depth = 2 if with_splits else 1
    for folder in sorted(tree.folders):
        parts = folder.split("/")
        split = split_of.get(parts[0]) if with_splits else "train"
        if len(parts) == depth and split and parts[-1] not in members[split]:
            raise DataError(
                f"class folder {tree.where / folder} has no images; "
                f"allowed are {', '.join(sorted(SUFFIXES))}"
            )


def _split(
    tree: Tree, name: str, files: dict[str, list[str]], labels: tuple[str, ...]
) -> Split:
    unknown = sorted(set(files) - set(labels))
    if unknown:
        raise DataError(
            f"{tree.where}: label {unknown[0]!r} occurs in {name} and not in train; "
            f"train has {list(labels[:20])}"
        )
    names = [file for label in labels for file in files.get(label, [])]
    indices = [k for k, label in enumerate(labels) for _ in files.get(label, [])]
    return Split(name, FileSamples(tree, tuple(names)), np.array(indices, np.int64))


def _names(tree: Tree, labels: tuple[str, ...]) -> tuple[str, ...]:
    if SYNSETS not in tree.names or not all(wnid_of(name) == name for name in labels):
        return labels
    lines = tree.read(SYNSETS).decode("utf-8", "replace").splitlines()
    named = dict(line.split(" ", 1) for line in lines if " " in line)
    return tuple(f"{wnid} {named[wnid]}" if wnid in named else wnid for wnid in labels)
