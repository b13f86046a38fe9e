"""every network → **what its graph is like**: nodes, parity with torch, bytes, int8.

Exports each network at its own size with random weights (see `bench.settled`), runs it
in ONNX Runtime at batches of 1 and 5, and compares with torch. Rows are kept by name in
one JSON file, and `--missing` goes on where an earlier run stopped.

    python -m bench.networks --int8 --missing
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.circumstances import circumstances, versions, write_record
from bench.options import add_record, command_line
from bench.settled import settle
from training.graphs import graph as onnx_graph
from training.graphs.export import PixelsToLogits, export_graph, parity
from training.networks import Network, NetworkCard, build, card, table
from training.quantization.quantize import quantize_int8

MEAN, STD = 0.45, 0.25
SETTLE_IMAGES = 8
LARGEST_DIFFERENCE = 1e-4  # of a logit, torch against ONNX Runtime
LEAST_CORRELATION = 0.9  # of the logits, int8 against fp32; random weights are harsh
MB = 1_000_000
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def random_pixels(row: NetworkCard, n: int) -> NDArray[np.uint8]:
    """uint8 [N, H, W, C] at the network's own size."""
    generator = np.random.default_rng(n)
    shape = (n, row.image_size, row.image_size, row.in_channels)
    return generator.integers(0, 256, shape, dtype=np.uint8)


def settled(row: NetworkCard) -> Network:
    """The network with random weights whose numbers can be compared."""
    torch.manual_seed(0)
    network = build(row.name, classes=row.classes, in_channels=row.in_channels)
    pixels = torch.from_numpy(random_pixels(row, SETTLE_IMAGES))
    settle(network, PixelsToLogits(network, *normalization(row)), pixels)
    return network


def normalization(row: NetworkCard) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std, a channel each."""
    return (MEAN,) * row.in_channels, (STD,) * row.in_channels


def measure(row: NetworkCard, *, int8: bool) -> dict[str, Any]:
    """One row: a fresh export, compared and weighed."""
    network = settled(row)
    mean, std = normalization(row)
    shape = (row.image_size, row.image_size, row.in_channels)
    graph = export_graph(network, shape=shape, mean=mean, std=std, classes=row.classes)
    differences = [
        parity(network, graph, random_pixels(row, n), mean=mean, std=std)
        for n in (1, 5)
    ]
    logits = onnx_graph.run(graph, [random_pixels(row, 5)])
    result = {
        "nodes": len(onnx_graph.parse(graph).graph.node),
        "parity": float(f"{max(differences):.1e}"),
        "logit_deviation": round(float(logits.std()), 3),
        "fp32_mb": round(len(graph) / MB, 2),
    }
    if int8:
        result |= weigh_int8(row, graph)
    return result


def weigh_int8(row: NetworkCard, graph: bytes) -> dict[str, Any]:
    """Bytes of the int8 graph, and that it runs; random weights have no accuracy."""
    pixels = random_pixels(row, SETTLE_IMAGES)
    quantized = quantize_int8(graph, [pixels])
    logits = onnx_graph.run(quantized, [pixels])
    correlation = np.corrcoef(onnx_graph.run(graph, [pixels]).ravel(), logits.ravel())
    return {
        "int8_mb": round(len(quantized) / MB, 2),
        "int8_correlation": round(float(correlation[0, 1]), 4),
    }


def keep(name: str, result: dict[str, Any], path: Path) -> None:
    """Put the row into the file beside those of other runs, with its circumstances."""
    rows = json.loads(path.read_text())["networks"] if path.is_file() else {}
    now = circumstances()
    rows[name] = result | {"commit": now["commit"], "measured": now["measured"]}
    ordered = {row.name: rows[row.name] for row in table() if row.name in rows}
    write_record(path, {"versions": versions(PACKAGES), "networks": ordered})


def complaint(result: dict[str, Any]) -> str | None:
    """What a row does not reach, or None."""
    if not result["parity"] <= LARGEST_DIFFERENCE:  # not a number is none either
        return f"parity {result['parity']}, wanted {LARGEST_DIFFERENCE}"
    correlation = result.get("int8_correlation", 1.0)
    if not correlation >= LEAST_CORRELATION:
        return f"int8 correlation {correlation}, wanted {LEAST_CORRELATION}"
    return None


def rows_wanted(
    names: list[str] | None, *, missing: bool, path: Path
) -> list[NetworkCard]:
    """The networks asked for, less those that the file has already."""
    rows = [card(name) for name in names] if names else list(table())
    there = json.loads(path.read_text())["networks"] if path.is_file() else {}
    return [row for row in rows if not (missing and row.name in there)]


def main() -> None:
    """Measure the networks asked for, print a line for each, keep them all."""
    parser = command_line("bench.networks", __doc__)
    parser.add_argument("--names", nargs="+", help="default: every network")
    parser.add_argument("--missing", action="store_true", help="not those in the file")
    parser.add_argument("--int8", action="store_true", help="quantize too")
    add_record(parser, "networks.json")
    given = parser.parse_args()
    complaints = []
    for row in rows_wanted(given.names, missing=given.missing, path=given.json):
        result = measure(row, int8=given.int8)
        keep(row.name, result, given.json)
        listed = ", ".join(f"{key} {value}" for key, value in result.items())
        print(f"{row.name}: {listed}", flush=True)
        if wrong := complaint(result):
            complaints.append(f"{row.name}: {wrong}")
    if complaints:
        raise SystemExit("\n".join(complaints))


if __name__ == "__main__":
    main()
