"""every network → **what its graph costs**: CPU seconds, nodes, parity and bytes.

Exports each network at its own size with random weights (batch norms settled on a few
random images, as training would), runs it in ONNX Runtime at batches of 1 and 5, and
compares with torch. Rows are kept by name in one JSON file, so that it can be run in
pieces.

    python -m bench.networks --names resnet18 vgg11 --int8
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.circumstances import REPOSITORY, circumstances, versions, write_record
from training.graphs import graph as onnx_graph
from training.graphs.export import PixelsToLogits, export_graph, parity
from training.networks import Network, NetworkCard, build, card, table
from training.quantization.quantize import quantize_int8

MEAN, STD = 0.45, 0.25
SETTLE_IMAGES = 8
MB = 1_000_000
RESULTS = REPOSITORY / "docs" / "results" / "networks.json"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def random_pixels(row: NetworkCard, n: int) -> NDArray[np.uint8]:
    """uint8 [N, H, W, C] at the network's own size."""
    generator = np.random.default_rng(n)
    shape = (n, row.image_size, row.image_size, row.in_channels)
    return generator.integers(0, 256, shape, dtype=np.uint8)


def settled(row: NetworkCard) -> Network:
    """The network with averages in its batch norms that fit its random weights."""
    torch.manual_seed(0)
    network = build(row.name, classes=row.classes, in_channels=row.in_channels)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        pixels = torch.from_numpy(random_pixels(row, SETTLE_IMAGES))
        PixelsToLogits(network, *normalization(row)).train()(pixels)
    return network.eval()


def normalization(row: NetworkCard) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std, a channel each."""
    return (MEAN,) * row.in_channels, (STD,) * row.in_channels


def measure(row: NetworkCard, *, int8: bool) -> dict[str, Any]:
    """One row: a fresh export, compared and weighed."""
    network = settled(row)
    mean, std = normalization(row)
    shape = (row.image_size, row.image_size, row.in_channels)
    started_s = time.process_time()
    graph = export_graph(network, shape=shape, mean=mean, std=std, classes=row.classes)
    export_cpu_s = time.process_time() - started_s
    differences = [
        parity(network, graph, random_pixels(row, n), mean=mean, std=std)
        for n in (1, 5)
    ]
    result = {
        "export_cpu_s": round(export_cpu_s, 1),
        "nodes": len(onnx_graph.parse(graph).graph.node),
        "parity": float(f"{max(differences):.1e}"),
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


def main() -> None:
    """Measure the networks asked for, print a line for each, keep them all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--names", nargs="+", help="default: every network")
    parser.add_argument("--int8", action="store_true", help="quantize too")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = [card(name) for name in arguments.names] if arguments.names else table()
    for row in rows:
        result = measure(row, int8=arguments.int8)
        keep(row.name, result, arguments.results)
        listed = ", ".join(f"{key} {value}" for key, value in result.items())
        print(f"{row.name}: {listed}", flush=True)
        if not math.isfinite(result["parity"]):
            raise SystemExit(f"{row.name} gives no numbers")


if __name__ == "__main__":
    main()
