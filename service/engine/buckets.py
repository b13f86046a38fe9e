"""batch of any size → **padded batch** of a few sizes, a session for each: for CUDA.

cuDNN 9 keeps the plan of the last shape only and makes a new one whenever the shape
changes (17 ms instead of 5 for one network, and 142 with EXHAUSTIVE search; see
`docs/decisions.md`). A session that always sees one shape never pays that. The price is
the weights once for each size.
"""

from collections.abc import Mapping

import numpy as np

from classifier.session import Batch, Logits, Session

SIZES = (1, 2, 4, 8, 16, 32, 64)


class Buckets:
    """Sessions of one graph by padded batch size."""

    def __init__(self, sessions: Mapping[int, Session]) -> None:
        self._sessions = dict(sorted(sessions.items()))
        self._largest = max(self._sessions)

    def run(self, batch: Batch) -> Logits:
        """Run uint8 [N, H, W, C] → float32 [N, K] for any N; see `Session.run`."""
        pieces = [
            self._run(batch[start : start + self._largest])
            for start in range(0, len(batch), self._largest)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _run(self, batch: Batch) -> Logits:
        size = next(size for size in self._sessions if size >= len(batch))
        missing = size - len(batch)
        if not missing:
            return self._sessions[size].run(batch)
        # the last image again: any content will do, its rows are cut off
        padded = np.concatenate([batch, batch[-1:].repeat(missing, axis=0)])
        return self._sessions[size].run(padded)[: len(batch)]
