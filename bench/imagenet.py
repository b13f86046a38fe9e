"""models/imagenet → **accuracy and agreement**, through `Classifier` as users call it.

    python -m bench.imagenet

Top-1 and top-5 of each graph on the 60 labelled ImageNet photos, and how often the
smaller graphs give fp32's first answer on photos of three other data sets, none of
which gave the ranges that int8 was quantized with. The choice of layers that stay in
fp32 was made on the same photos, so the agreement is a little optimistic.
"""

import argparse
import csv
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.circumstances import write_record
from bench.options import add_record, command_line
from classifier import Answer, Classifier

TARS = ("cats-dogs.tar", "fruits-fine-grained.tar", "voc2007-multilabel.tar")


def main() -> None:
    """Measure every graph of the bundle and write the record."""
    options = read_options()
    labelled = list(read_labelled(options.data / "imagenet-samples"))
    others = [photo for name in TARS for photo in read_tar(options.data / name)]
    variants = Classifier.load(options.bundle, device="cpu").manifest.graphs
    result: dict[str, Any] = {"labelled": len(labelled), "unlabelled": len(others)}
    reference: list[int] = []
    for precision in sorted((v.precision for v in variants), key=lambda p: p != "fp32"):
        classifier = Classifier.load(options.bundle, precision=precision, device="cpu")
        found = accuracy(classifier, labelled)
        firsts = [answer.predictions[0].index for answer in answers(classifier, others)]
        reference = reference or firsts
        same = sum(a == b for a, b in zip(firsts, reference, strict=True))
        found["agreement_with_fp32"] = same / len(others)
        result[str(precision)] = found
        print(precision, found)
    write_record(options.json, result)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = command_line("bench.imagenet", __doc__)
    data = os.environ.get("LINNAEUS_DATA", "../shared/data")
    parser.add_argument("--bundle", type=Path, default=Path("models/imagenet"))
    parser.add_argument("--data", type=Path, default=Path(data))
    add_record(parser, "imagenet.json")
    return parser.parse_args()


def accuracy(
    classifier: Classifier, photos: Sequence[tuple[bytes, int]]
) -> dict[str, float]:
    """Share of photos whose class is the first, or among the first five, answers."""
    ranked = [
        [prediction.index for prediction in answer.predictions]
        for answer in answers(classifier, [data for data, _ in photos])
    ]
    truth = [index for _, index in photos]
    hits = list(zip(ranked, truth, strict=True))
    return {
        f"top_{k}": sum(index in found[:k] for found, index in hits) / len(hits)
        for k in (1, 5)
    }


def answers(classifier: Classifier, photos: Sequence[bytes]) -> Iterator[Answer]:
    """An answer for each photo, in order; a photo that cannot be read ends the run."""
    for answer in classifier.classify_many(photos, top_k=5):
        if not isinstance(answer, Answer):
            raise SystemExit(f"a photo cannot be classified: {answer}")
        yield answer


def read_labelled(folder: Path) -> Iterator[tuple[bytes, int]]:
    """Photo and class index of each row of labels.csv."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield (folder / row["filename"]).read_bytes(), int(row["class_index"])


def read_tar(path: Path) -> Iterator[bytes]:
    """The photos that are in no train split."""
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar if member.isfile()}

        def content(name: str) -> bytes:
            file = tar.extractfile(members[name])
            return b"" if file is None else file.read()

        if "labels.csv" in members:
            rows = csv.DictReader(io.StringIO(content("labels.csv").decode()))
            names = [
                f"images/{row['filename']}" for row in rows if row["split"] != "train"
            ]
        else:
            names = [name for name in members if not name.startswith("train/")]
        for name in sorted(names):
            yield content(name)


if __name__ == "__main__":
    main()
