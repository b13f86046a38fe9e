"""checkpoint → **measured truth**: the test split, once, on the graph that is served.

The network is exported and run by `classifier.session`, never by torch, so that what is
measured is what answers requests. Torch has a part in counting what was right.
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from classifier.session import Session
from training.configs.config import Config
from training.data import Split
from training.data.pieces import images_at_once, in_pieces
from training.evaluation.views import Pixels, average_logits
from training.graphs.export import export_graph
from training.networks import Network
from training.objectives.objective import Objective, Scores


def export(network: Network, config: Config) -> bytes:
    """The network as the graph that is served."""
    return export_graph(
        network,
        shape=config.data.spec.shape,
        mean=config.data.mean,
        std=config.data.std,
        classes=network.head.out_features,
    )


def measure_test(
    graph: bytes, split: Split, config: Config, objective: Objective
) -> dict[str, float]:
    """The task's scores of the graph with one view and with the config's views.

    They have their names on validation; with several views `_views` comes after.
    """
    pixels = split.pixels(config.data.spec)  # uint8 [N, H, W, C]
    session = Session.load(graph)
    size = images_at_once(config.data.spec, batch_size=config.train.batch_size)
    started_s = time.perf_counter()
    single = _run(session, pixels, views=1, size=size)
    found = {
        "images": len(split),
        **_scores(single, split, objective),
        "seconds_single_view": round(time.perf_counter() - started_s, 1),
    }
    if config.evaluate.views > 1:
        started_s = time.perf_counter()
        averaged = _run(session, pixels, views=config.evaluate.views, size=size)
        scores = _scores(averaged, split, objective)
        found |= {
            "views": config.evaluate.views,
            **{f"{name}_views": value for name, value in scores.items()},
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


def _scores(logits: NDArray[np.float32], split: Split, objective: Objective) -> Scores:
    return objective.score(torch.tensor(logits), torch.tensor(split.labels))
