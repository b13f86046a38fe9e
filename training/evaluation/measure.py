"""checkpoint → **measured truth**: the test split, once, on the graph that is served.

The network is exported and run by `classifier.session`, never by torch, so that what is
measured is what answers requests.
"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.session import Session
from training.configs.config import Config
from training.data import Split
from training.data.pieces import images_at_once, in_pieces
from training.evaluation.views import Pixels, average_logits
from training.graphs.export import export_graph
from training.networks import Network


def export(network: Network, config: Config) -> bytes:
    """The network as the graph that is served."""
    return export_graph(
        network,
        shape=config.data.spec.shape,
        mean=config.data.mean,
        std=config.data.std,
        classes=network.head.out_features,
    )


def test_accuracy(graph: bytes, split: Split, config: Config) -> dict[str, float]:
    """Top-1 of the graph with one view and with the config's views."""
    pixels = split.pixels(config.data.spec)  # uint8 [N, H, W, C]
    session = Session.load(graph)
    size = images_at_once(config.data.spec, batch_size=config.train.batch_size)
    started_s = time.perf_counter()
    single = _run(session, pixels, views=1, size=size)
    found = {
        "images": len(split),
        "accuracy": _right(single, split.labels),
        "seconds_single_view": round(time.perf_counter() - started_s, 1),
    }
    if config.evaluate.views > 1:
        started_s = time.perf_counter()
        averaged = _run(session, pixels, views=config.evaluate.views, size=size)
        found |= {
            "views": config.evaluate.views,
            "accuracy_views": _right(averaged, split.labels),
            "seconds_views": round(time.perf_counter() - started_s, 1),
        }
    return found


def _run(
    session: Session, pixels: Pixels, *, views: int, size: int
) -> NDArray[np.float32]:
    pieces = [
        average_logits(session.run, piece, count=views)
        for piece in in_pieces(pixels, size=size)
    ]
    return np.concatenate(pieces)


def _right(logits: NDArray[np.float32], labels: NDArray[Any]) -> float:
    return float(np.mean(logits.argmax(1) == labels))
