"""skeletons + GPU → **rates of the service**: its engine, its decoding, its HTTP.

Three figures for each network, on the bundle that `auto` serves there (fp16):

- what ONNX Runtime gives by itself: one session, still batches of uint8, the best size;
- what the engine gives for pixels that others have decoded, in requests of one image
  and of many;
- JPEG photos over HTTP, by the number of processes, beside decoding alone on all cores.

    python -m bench.skeleton resnet50 efficientnet_lite0 --out build/gpu   # anywhere
    python -m bench.gpu_serving --graphs build/gpu --json gpu_serving.json # on the GPU

`--device cpu` runs the same on a CPU, to try the command itself.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.bodies import raw
from bench.circumstances import write_record
from bench.ending import command
from bench.gpu_engine import engine_rate
from bench.gpu_sweep import images_per_s, load_subjects
from bench.launch import processor_s
from bench.model import Decoder
from bench.options import add_record, command_line
from bench.random_bundle import write_random_bundle
from bench.service import serving
from bench.workloads import data_root, read_photos
from bench.wrk import saturate
from classifier.bundle import load_bundle
from classifier.device import cuda_problem
from classifier.hardware import available_cores
from classifier.manifest import Precision
from classifier.session import Session
from classifier.variant import choose_variant

STILL_BATCHES = (16, 32, 64)
REQUESTS = (1, 32)  # images of each
MEMBERS_START_S = 8.0
WARM_S = 2.0


def make_bundles(graphs: Path, models: Path) -> list[str]:
    """Bundles with random weights of all skeletons; their names."""
    found: dict[str, dict[Precision, bytes]] = {}
    shapes = {}
    for subject in load_subjects(graphs):
        found.setdefault(subject.name, {})[Precision(subject.precision)] = subject.graph
        shapes[subject.name] = subject.shape
    for name, each in found.items():
        if not (models / name).is_dir():
            classes = Session.load(each[Precision.FP32]).logits
            write_random_bundle(models, name, each, shape=shapes[name], classes=classes)
    return sorted(found)


def alone(models: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """ONNX Runtime by itself: images a second by the size of still batches."""
    bundle = load_bundle(models / name)
    variant = choose_variant(bundle, "auto", options.device)
    graph, rates = bundle.read_graph(variant), {}
    for n in STILL_BATCHES:
        session = Session.load(graph, device=options.device)
        noise = np.random.default_rng(n)
        batch = noise.integers(0, 256, (n, *session.shape), dtype=np.uint8)
        rates[n] = images_per_s(session.run, [batch], seconds=options.seconds)
    return {"precision": variant.precision, "images_per_s": rates}


def _decode(photos: Sequence[bytes], models: Path, name: str, seconds: float) -> float:
    """Images a second of one process that only decodes."""
    decoder = Decoder(load_bundle(models / name))
    batches = [[photo] for photo in photos]
    return images_per_s(lambda one: decoder.pixels(one[0]), batches, seconds=seconds)


def decode_rate(
    photos: Sequence[bytes], models: Path, name: str, *, seconds: float
) -> float:
    """Images a second that all cores together can decode."""
    cores = available_cores()
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        work = [
            pool.submit(_decode, photos, models, name, seconds) for _ in range(cores)
        ]
        return sum(each.result() for each in work)


def http_rate(
    photos: Sequence[bytes],
    models: Path,
    name: str,
    settings: Mapping[str, str],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The closed loop over HTTP, in the service's processes."""
    bodies = [raw(photo) for photo in photos]
    started_s = time.perf_counter()
    given = {"LINNAEUS_DEVICE": options.device, "LINNAEUS_LOG_LEVEL": "warning"}
    with serving(models, name, probe=bodies[0], settings=given | settings) as service:
        start_s = time.perf_counter() - started_s
        time.sleep(MEMBERS_START_S)
        connections = options.connections
        saturate(bodies, service.target, connections=connections, seconds=WARM_S)
        before_s = processor_s(service.process)
        closed = saturate(
            bodies, service.target, connections=connections, seconds=options.http_s
        )
        cores = (processor_s(service.process) - before_s) / options.http_s
    return {
        "settings": dict(settings),
        "start_s": start_s,
        "images_per_s": closed.images_per_s,
        "p50_ms": closed.p50_ms,
        "p99_ms": closed.p99_ms,
        "failed": closed.failed,
        "cores": cores,
    }


def measure(name: str, models: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one network; a piece that fails leaves its reason."""
    photos = read_photos(options.data)
    found: dict[str, Any] = {}

    def piece(label: str, take: Any) -> None:
        try:
            found[label] = take()
        except Exception as error:  # a border: the others shall still be measured
            found[label] = {"failure": f"{type(error).__name__}: {error}"[:2000]}
        print(f"{name} {label}: {found[label]}", flush=True)

    piece("alone", lambda: alone(models, name, options))
    for images in REQUESTS:
        rate = partial(
            engine_rate,
            models,
            name,
            device=options.device,
            images=images,
            seconds=options.seconds,
        )
        piece(f"engine_{images}", lambda: asyncio.run(rate()))  # noqa: B023
    piece(
        "decode_images_per_s",
        lambda: decode_rate(photos, models, name, seconds=options.seconds),
    )
    for processes in options.processes:
        settings = {"LINNAEUS_PROCESSES": processes}
        piece(
            f"http_{processes}",
            lambda: http_rate(photos, models, name, settings, options),  # noqa: B023
        )
    return found


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = command_line("bench.gpu_serving", __doc__)
    option = parser.add_argument
    option("--graphs", type=Path, required=True, help="folder of skeletons")
    option("--models", type=Path, default=Path("build/gpu-models"))
    option("--only", nargs="+", help="names of networks")
    option("--processes", nargs="*", default=["auto"], help="numbers, or auto")
    option("--connections", type=int, default=128)
    option("--seconds", type=float, default=3.0, help="each figure without HTTP")
    option("--http-s", type=float, default=8.0, help="each figure over HTTP")
    option("--data", type=Path, default=data_root())
    option("--device", choices=["cuda", "cpu"], default="cuda")
    add_record(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure network by network; the record is written after each."""
    options = read_arguments(arguments)
    if options.device == "cuda" and (problem := cuda_problem()) is not None:
        print(f"nothing was measured: {problem}", file=sys.stderr)
        return 2
    found: dict[str, Any] = {}
    for name in make_bundles(options.graphs, options.models):
        if options.only and name not in options.only:
            continue
        found[name] = measure(name, options.models, options)
        if options.json is not None:
            write_record(options.json, {"serving": found})
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(command(main))
