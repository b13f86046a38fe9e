"""batch → **outcomes, each its own**: a failing batch is bisected.

One poisoned image must not cost its neighbors their answers, and a batch that the
device has no room for may fit in halves. The work grows by the logarithm of the batch
for each guilty image.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from classifier.errors import SessionError
from classifier.session import Batch, Logits


def run_isolated(
    run: Callable[[Batch], Logits], batch: Batch
) -> list[npt.NDArray[np.float32] | SessionError]:
    """Run a batch, uint8 [N, H, W, C]; each place holds float32 [K] or its error."""
    try:
        logits = run(batch)
    except SessionError as error:
        if len(batch) == 1:
            return [error]
        half = len(batch) // 2
        return run_isolated(run, batch[:half]) + run_isolated(run, batch[half:])
    finite: list[bool] = np.logical_and.reduce(np.isfinite(logits), axis=1).tolist()
    return [
        row
        if sound
        else SessionError("the graph gave logits that are not finite numbers")
        for row, sound in zip(logits, finite, strict=True)
    ]
