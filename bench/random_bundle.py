"""network → **bundle with random weights**: for speed only, its answers mean nothing.

What a server costs does not depend on the weights, so a workload can be measured before
its network is trained, and for networks of which no bundle is committed (ResNet-50).
Needs the extra `train`.

    python -m bench.random_bundle lenet5 --side 28 --gray --classes 10 --out build
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.circumstances import circumstances
from bench.options import command_line
from classifier.bundle import write_bundle
from classifier.golden import Golden
from classifier.hardware import describe
from classifier.manifest import (
    Label,
    Manifest,
    PostprocessSpec,
    Precision,
    PreprocessSpec,
    Provenance,
    Task,
)
from classifier.session import Session

MEAN, STD = 0.5, 0.25  # any: the weights are random too
# Largest |logit difference| to the CPU, as a share of the largest |logit|, which random
# weights do not keep near ten.
TOLERANCE = {Precision.FP32: 1e-3, Precision.FP16: 2e-2}
DESCRIPTION = "RANDOM WEIGHTS, made to measure speed: its answers mean nothing"


def build_graph(network: str, *, shape: tuple[int, int, int], classes: int) -> bytes:
    """An ONNX graph of `network` with the weights it is born with."""
    import torch  # noqa: PLC0415  only here: the rest of bench/ runs without it

    from training.graphs.export import export_graph  # noqa: PLC0415
    from training.networks import build  # noqa: PLC0415

    torch.manual_seed(0)
    height, _, channels = shape
    born = build(network, classes=classes, in_channels=channels, image_size=height)
    return export_graph(
        born.eval(),
        shape=shape,
        mean=[MEAN] * channels,
        std=[STD] * channels,
        classes=classes,
    )


def write_random_bundle(
    root: Path,
    name: str,
    graphs: Mapping[Precision, bytes],
    *,
    shape: tuple[int, int, int],
    classes: int,
) -> Path:
    """Write `root/name/1` around a graph in one or several precisions."""
    from training.bundling.draft import (  # noqa: PLC0415  needs onnx
        Built,
        file_name,
        variant_of,
    )

    height, width, channels = shape
    golden = _golden(graphs, shape)
    files = {file_name(precision): graph for precision, graph in graphs.items()}
    manifest = Manifest(
        schema_version=1,
        name=name,
        version=1,
        description=DESCRIPTION,
        task=Task.MULTICLASS,
        labels=tuple(Label(id=f"{k}", name=f"{k}", group=None) for k in range(classes)),
        preprocess=PreprocessSpec(
            height=height,
            width=width,
            color="rgb" if channels == 3 else "gray",
            resize="squash",
            short_side=None,
            interpolation="bilinear",
            background=(255, 255, 255),
        ),
        postprocess=PostprocessSpec(
            activation="softmax",
            temperature=1.0,
            thresholds=None,
            top_k=5,
            abstain_threshold=None,
        ),
        graphs=tuple(
            variant_of(
                precision,
                Built(graph, None),
                tolerance=TOLERANCE[precision]
                * float(np.abs(golden.logits[precision]).max()),
            )
            for precision, graph in graphs.items()
        ),
        provenance=_provenance(),
    )
    card = f"# {name}\n\n{DESCRIPTION}.\n"
    return write_bundle(root, manifest, graphs=files, golden=golden, card=card)


def _golden(graphs: Mapping[Precision, bytes], shape: tuple[int, int, int]) -> Golden:
    noise = np.random.default_rng(0)
    pixels = noise.integers(0, 256, (2, *shape), dtype=np.uint8)  # [N, H, W, C]
    logits = {
        precision: Session.load(graph).run(pixels)  # float32 [N, K]
        for precision, graph in graphs.items()
    }
    return Golden(pixels, logits)


def _provenance() -> Provenance:
    now = circumstances()
    return Provenance(
        command=now["command"],
        config=None,
        commit=now["commit"],
        data_sha256={},
        versions=now["versions"],
        hardware=describe(),
        seconds=0.0,
        created=now["measured"],
        license="Apache-2.0",
        source="random weights",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one bundle and print where it is."""
    parser = command_line("bench.random_bundle", __doc__)
    parser.add_argument("network", help="a name of `linnaeus networks`")
    parser.add_argument("--name", help="of the bundle; the network's by default")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--gray", action="store_true", help="one channel")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True, help="a models folder")
    options = parser.parse_args(arguments)
    shape = (options.side, options.side, 1 if options.gray else 3)
    graph = build_graph(options.network, shape=shape, classes=options.classes)
    print(
        write_random_bundle(
            options.out,
            options.name or options.network,
            {Precision.FP32: graph},
            shape=shape,
            classes=options.classes,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
