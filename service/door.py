"""connections → **as many as there is room for**; the next one is told so.

Each may hold 64 KiB of a head, and takes a descriptor that files and pipes need, too.
"""

from structlog.typing import FilteringBoundLogger

from service.files import OTHER_FILES, connections_within
from service.logs import Sparing
from service.metrics import Metrics

# Of the descriptors that are kept for everything else, refused connections that still
# send may have so many. It is better to reset a client than to be deaf to a probe.
MOST_HEARD_OUT = OTHER_FILES // 2


class Door:
    """Lets connections into a process."""

    def __init__(
        self, most: int, *, metrics: Metrics, log: FilteringBoundLogger
    ) -> None:
        self._most = connections_within(most)
        self._metrics = metrics
        self._log = log
        self._sparing = Sparing()

    def admits(self, connections: int) -> bool:
        """Whether there may be so many; if not, it is counted and logged."""
        if connections <= self._most:
            return True
        self._metrics.connections_refused.add()
        untold = self._sparing.untold()
        if untold is not None:
            self._log.warning("connections_refused", most=self._most, untold=untold)
        return False

    def hears_out(self, connections: int) -> bool:
        """Whether one that has its answer may stay a while, at so many connections."""
        return connections <= self._most + MOST_HEARD_OUT
