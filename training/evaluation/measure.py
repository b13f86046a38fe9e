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
from training.graphs.export import export_network
from training.graphs.views import Viewed
from training.networks import Network
from training.objectives.objective import Objective, Scores


def measure_test(
    network: Network, split: Split, config: Config, objective: Objective
) -> dict[str, float]:
    """The task's scores of the graph with one view and with the config's views.

    They have their names on validation; with several views `_views` comes after. The
    seconds are those of the graph, without its export.

    Raises:
        GraphError: the network cannot be exported.
    """
    pixels = split.pixels(config.data.spec)  # uint8 [N, H, W, C]
    logits, seconds = _run(network, pixels, config, views=1)
    scores = _scores(logits, split, objective)
    found = {"images": len(split), **scores, "seconds_single_view": seconds}
    views = config.evaluate.views
    if views > 1:
        logits, seconds = _run(network, pixels, config, views=views)
        scores = _scores(logits, split, objective)
        found |= {
            "views": views,
            **{f"{name}_views": value for name, value in scores.items()},
            "seconds_views": seconds,
        }
    return found


def _run(
    network: Network, pixels: NDArray[np.uint8], config: Config, *, views: int
) -> tuple[NDArray[np.float32], float]:
    """Logits [N, K] of the exported graph, and the seconds that it took."""
    seen = network if views == 1 else Viewed(network, views)
    classes = network.head.out_features
    session = Session.load(export_network(seen, config.data, classes=classes))
    size = images_at_once(config.data.spec, batch_size=config.train.batch_size)
    started_s = time.perf_counter()
    # the views of a piece are one batch: as many images as go through at once
    pieces = in_pieces(pixels, size=max(1, size // views))
    logits = np.concatenate([session.run(piece) for piece in pieces])
    return logits, round(time.perf_counter() - started_s, 1)


def _scores(logits: NDArray[np.float32], split: Split, objective: Objective) -> Scores:
    return objective.score(torch.tensor(logits), torch.tensor(split.labels))
