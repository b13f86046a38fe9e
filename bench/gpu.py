"""graphs + GPU → **table**: which way of running batches is fastest, and is it right.

One command, for a host that has torch (its CUDA 13 and cuDNN 9 are used),
onnxruntime-gpu, onnx, pydantic and Pillow:

    python -m bench.skeleton resnet50 efficientnet_lite0 --out build/gpu   # anywhere
    python -m bench.gpu --graphs build/gpu --json docs/results/gpu.json    # on the GPU

It shows that CUDA really runs the graph (first provider, nodes by provider), compares
logits with the CPU, sweeps strategy x convolution search x layout for each graph,
steadily at each bucket and with mixed batch sizes, and runs two batches in flight with
the best. Without a GPU it says so and exits with 2.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.circumstances import write_record
from bench.ending import command
from bench.gpu_runners import Options
from bench.gpu_sweep import (
    Subject,
    arrangements,
    describe,
    describe_flight,
    fly,
    load_subjects,
    measure,
    nodes_by_provider,
)
from bench.options import add_record, command_line
from classifier.device import cuda_problem
from classifier.runtime import onnxruntime

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
ROW_TIMEOUT_S = 120.0  # the exhaustive search of a large network takes a minute


def sweep(
    subject: Subject,
    options: argparse.Namespace,
    *,
    until_s: float,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Everything about one graph, as far as the time allows, kept after each row."""
    nodes = apart(nodes_by_provider, subject, Options())
    print(f"{subject.name} {subject.precision}: nodes by provider {nodes}", flush=True)
    subject.on_cpu  # noqa: B018 - once, and not in each process
    rows: list[dict[str, Any]] = []
    found = {"nodes": nodes, "rows": rows, "flight": None}
    keep(found)
    for strategy, how in arrangements():
        if time.monotonic() > until_s:
            print(f"{subject.name} {subject.precision}: no time for more", flush=True)
            break
        row = apart(measure, subject, strategy, how, options.buckets, options.seconds)
        rows.append(row)
        print(describe(row), flush=True)
        keep(found)
    best = best_of(rows)
    if best is not None:
        flight = apart(fly, subject, best, options.buckets, options.seconds)
        print(describe_flight(subject, flight), flush=True)
        keep(found | {"flight": flight})


def best_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The fastest row with mixed sizes, of those that are right and came to an end."""
    whole = [row for row in rows if row.get("right") and "failure" not in row]
    return max(whole, key=lambda row: row["mixed_images_per_s"], default=None)


def apart(
    work: Callable[..., dict[str, Any]],
    *given: Any,
    timeout_s: float = ROW_TIMEOUT_S,
) -> dict[str, Any]:
    """What `work` finds in a process of its own, or how that failed.

    An illegal access ends all CUDA of its process, so it must have none beside it.
    """
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=answer, args=(theirs, work, given))
    process.start()
    theirs.close()  # so that the end of the process ends a recv here
    try:
        if ours.poll(timeout_s):
            found: dict[str, Any] = ours.recv()
            return found
        failure = f"no end after {timeout_s:.0f} s"
    except EOFError:
        process.join()
        failure = f"its process died: exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return failed(failure, given)


def failed(failure: str, given: Sequence[Any]) -> dict[str, Any]:
    """The row of an arrangement that was given, after its graph, and failed."""
    _, *known = given
    return {"failure": failure[:500], "of": repr(known)[:500]}


def answer(
    pipe: Connection, work: Callable[..., dict[str, Any]], given: Sequence[Any]
) -> None:
    """In a process of its own: do the work and send what it found."""
    preload_cuda()
    try:
        found = work(*given)
    except Exception as error:  # a border: one failure must not end the sweep
        found = failed(f"{type(error).__name__}: {error}", given)
    pipe.send(found)


def preload_cuda() -> None:
    """torch brings the CUDA and cuDNN libraries: to be imported before a session."""
    if find_spec("torch") is not None:
        import torch  # noqa: F401, PLC0415  only where there is a GPU


def describe_device() -> str:
    """What torch calls the GPU, where there is torch."""
    if find_spec("torch") is None:
        return "no torch, whose CUDA libraries would be used"
    import torch  # noqa: PLC0415  as above

    return f"torch {torch.__version__}, {torch.cuda.get_device_name(0)}"


def build() -> str:
    """The ONNX Runtime that was really imported, which metadata may not tell."""
    return f"{onnxruntime.__version__}: {onnxruntime.get_build_info()}"


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = command_line("bench.gpu", __doc__)
    parser.add_argument(
        "--graphs", type=Path, required=True, help="NAME.PRECISION.onnx"
    )
    parser.add_argument("--buckets", type=int, nargs="+", default=BUCKETS)
    parser.add_argument("--seconds", type=float, default=1.0, help="each figure")
    parser.add_argument("--only", nargs="+", help="graphs: NAME or NAME.PRECISION")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="for all graphs together"
    )
    add_record(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep; the record is written after every row, so a cut run keeps them."""
    options = read_arguments(arguments)
    problem = cuda_problem()
    if problem is not None:
        print(f"nothing was measured: {problem}", file=sys.stderr)
        return 2
    print(describe_device(), flush=True)
    found: dict[str, Any] = {}
    subjects = [
        subject
        for subject in load_subjects(options.graphs)
        if not options.only
        or {subject.name, f"{subject.name}.{subject.precision}"} & set(options.only)
    ]
    began_s, share_s = time.monotonic(), options.minutes * 60 / max(len(subjects), 1)
    for number, subject in enumerate(subjects, start=1):
        title = f"{subject.name} {subject.precision}"

        def keep(table: dict[str, Any], title: str = title) -> None:
            found[title] = table
            if options.json is not None:
                write_record(options.json, {"build": build(), "graphs": found})

        sweep(subject, options, until_s=began_s + number * share_s, keep=keep)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(command(main))
