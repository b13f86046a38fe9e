"""shots → **summary**: percentiles, goodput, errors, the truth of Retry-After.

A *shot* is one request of a load. Its latency counts from the instant at which it was
meant to be sent, not from the one at which the client got round to it: a stalled
server would otherwise delay the requests that show the stall (coordinated omission).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Statuses of our own, beside those of HTTP.
BROKEN = 0  # the connection ended before a whole answer
EXPIRED = -1  # no answer within the client's patience


@dataclass(frozen=True, slots=True)
class Shot:
    """One request: instants in seconds on the load's own monotonic clock."""

    intended_s: float
    sent_s: float
    done_s: float
    status: int
    retry_after_s: float | None = None
    images: int = 1  # in a batch request, how many

    @property
    def latency_s(self) -> float:
        """From the intended send to the whole answer."""
        return self.done_s - self.intended_s

    @property
    def answered(self) -> bool:
        """Whether it was classified."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Summary:
    """What a load found; latencies in milliseconds, rates a second of the load."""

    offered_per_s: float
    answered_per_s: float  # this and the next two: while the load lasted
    images_per_s: float
    goodput_per_s: float  # answered within the deadline
    late: int  # answered, but past the deadline
    p50_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float
    statuses: dict[str, int]
    send_lag_p99_ms: float  # how late the client itself was
    retry_after: dict[str, Any] | None


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that `percent` % of `values` do not exceed; NaN of none.

    Nearest rank: the answer is a latency that some request really had.
    """
    ordered = sorted(values)
    if not ordered:
        return math.nan
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def summarize(
    shots: Sequence[Shot], *, seconds: float, deadline_s: float = math.inf
) -> Summary:
    """Sum up a load that was offered for `seconds`.

    Rates count what was answered by then: the backlog of an overload is answered
    afterwards, and would pass for a throughput that no service has.
    """
    answered = [shot for shot in shots if shot.answered]
    latencies_ms = [shot.latency_s * 1e3 for shot in answered]
    in_time = [shot for shot in answered if shot.latency_s <= deadline_s]
    meanwhile = [shot for shot in answered if shot.done_s <= seconds]
    lag_ms = [(shot.sent_s - shot.intended_s) * 1e3 for shot in shots]
    return Summary(
        offered_per_s=len(shots) / seconds,
        answered_per_s=len(meanwhile) / seconds,
        images_per_s=sum(shot.images for shot in meanwhile) / seconds,
        goodput_per_s=sum(shot.done_s <= seconds for shot in in_time) / seconds,
        late=len(answered) - len(in_time),
        p50_ms=percentile(latencies_ms, 50),
        p95_ms=percentile(latencies_ms, 95),
        p99_ms=percentile(latencies_ms, 99),
        worst_ms=percentile(latencies_ms, 100),
        statuses=count_statuses(shots),
        send_lag_p99_ms=percentile(lag_ms, 99),
        retry_after=judge_retry_after(shots),
    )


def count_statuses(shots: Iterable[Shot]) -> dict[str, int]:
    """How many shots ended in which way, by name: "200", "503", "broken", "expired"."""
    names = {BROKEN: "broken", EXPIRED: "expired"}
    counts = Counter(names.get(shot.status, str(shot.status)) for shot in shots)
    return dict(sorted(counts.items()))


def judge_retry_after(shots: Sequence[Shot]) -> dict[str, Any] | None:
    """Compare each 503's Retry-After with the wait that the load really shows.

    The true wait of a refusal at t is how long the requests then inside took to be
    answered: the last `done` of those sent before t and answered after it, minus t.
    Retry-After counts whole seconds, so 1 is right for any wait up to a second;
    otherwise it is right within a factor of 2. None where nothing was refused.
    """
    refused = [shot for shot in shots if shot.status == 503]
    if not refused:
        return None
    told = [shot for shot in refused if shot.retry_after_s is not None]
    waits = _true_waits(shots, [shot.done_s for shot in told])
    right = sum(
        retry_after_is_right(shot.retry_after_s or 0.0, wait)
        for shot, wait in zip(told, waits, strict=True)
    )
    return {
        "refused": len(refused),
        "without": len(refused) - len(told),
        "right": right,
        "share_right": right / len(refused),
        "told_s_median": percentile([s.retry_after_s or 0.0 for s in told], 50),
        "true_s_median": percentile(waits, 50),
    }


def retry_after_is_right(told_s: float, true_s: float) -> bool:
    """Whether `told_s` is within a factor of 2 of `true_s`, or the second above it."""
    return true_s / 2 <= told_s <= max(true_s * 2, 1.0)


def _true_waits(shots: Sequence[Shot], instants: Sequence[float]) -> list[float]:
    """For each instant, seconds until everything sent before it was answered.

    Answered shots by the time they were sent; the running maximum of `done` up to an
    instant is the moment at which all that had entered by then had left: O(n log n).
    """
    answered = sorted((s.sent_s, s.done_s) for s in shots if s.answered)
    if not answered:
        return [0.0] * len(instants)
    sent_s = np.array([sent for sent, _ in answered])  # float64 [n]
    left_s = np.maximum.accumulate([done for _, done in answered])  # float64 [n]
    before = np.searchsorted(sent_s, np.array(instants), side="left")  # int [m]
    waits = np.where(before > 0, left_s[np.maximum(before, 1) - 1] - instants, 0.0)
    return [float(wait) for wait in np.maximum(waits, 0.0)]
