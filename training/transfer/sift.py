"""photos + ImageNet network → **photos with a dog** that nobody labelled.

    python -m training.transfer.sift ../shared/data/voc2007-multilabel.tar

Pascal VOC's dogs are not among the five labels of that data set, so a dog can stand
beside a person or a cat without a word. As negatives of a dog detector such photos
would teach it to overlook dogs. The list in `configs/dog.toml` was made by this command
and looked through on a contact sheet. Leaving out a few photos too many costs little.
"""

import argparse
import sys
from pathlib import Path, PurePath

import numpy as np

from classifier.manifest import PreprocessSpec
from classifier.session import Session
from training.data import load_dataset
from training.data.pieces import in_pieces
from training.errors import TrainingError
from training.graphs.export import export_graph
from training.pretrained.published import MEAN, STD, find_published, load_published

SIDE = 288
DOGS = slice(151, 269)  # the 118 breeds among ImageNet's 1000 classes
BATCH = 16

# Summed score of all breeds from which a photo is left out. The network takes many cats
# for dogs (their postures are alike), so a photo with a labelled cat needs more.
LEAST, LEAST_WITH_CAT = 0.10, 0.25


def dog_photos(path: Path) -> list[str]:
    """File names of the photos of a data set that probably show a dog."""
    spec = PreprocessSpec(
        height=SIDE, width=SIDE, color="rgb", resize="squash", short_side=None,
        interpolation="bicubic", background=(255, 255, 255),
    )  # fmt: skip
    network = load_published(find_published("efficientnet_lite0"))
    graph = export_graph(network, shape=spec.shape, mean=MEAN, std=STD, classes=1000)
    session = Session.load(graph)
    dataset = load_dataset(path, multi_label=True)
    found = []
    for part in dataset.parts.values():
        pixels = part.pixels(spec)  # uint8 [N, H, W, C]
        pieces = in_pieces(pixels, size=BATCH)
        logits = np.concatenate([session.run(piece) for piece in pieces])
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = scores[:, DOGS].sum(axis=1) / scores.sum(axis=1)  # float32 [N]
        cat = part.labels[:, dataset.label_names.index("cat")].astype(bool)
        doubtful = scores >= np.where(cat, LEAST_WITH_CAT, LEAST)
        chosen = np.flatnonzero(doubtful).tolist()
        names = [PurePath(part.samples.name(i)).name for i in chosen]
        found += names
    return sorted(found)


def main() -> None:
    """Print the names, one a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", type=Path, help="the data set, folder or archive")
    try:
        names = dog_photos(parser.parse_args().data)
    except TrainingError as error:
        sys.exit(f"linnaeus: {error}")
    sys.stdout.write("\n".join(names) + "\n")


if __name__ == "__main__":
    main()
