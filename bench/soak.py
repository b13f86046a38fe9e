"""200,000 mixed requests → **flat or not**: memory, threads and open files over time.

Raw, multipart, JSON and batch requests, images that are broken, clients that leave in
the middle: whatever leaks, leaks under such a mixture. After a warm-up of a fifth, RSS
should stay within 5 % of its median, and threads and files should not grow.

    python -m bench.soak --requests 200000
"""

import asyncio
import contextlib
import dataclasses
import random
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.bodies import Body, batch, encoded, multipart, raw
from bench.circumstances import write_record
from bench.client import ConnectionBrokenError, Pool, ResponseError, Target
from bench.ending import command
from bench.options import add_images, add_models, add_record, command_line, count
from bench.service import Service, Usage, serving
from bench.traffic import run
from bench.workloads import load_workload

SAMPLES = 50
WARM_SHARE = 0.2
TOLERANCE = 0.05  # of the median RSS
PATIENCE_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request in the mixture."""

    name: str
    share: float
    bodies: Sequence[Body]
    leaves: bool = False  # the client hangs up without waiting


def mixture(
    digits: Sequence[bytes], photos: Sequence[bytes], *, model: str = "imagenet"
) -> list[Kind]:
    """What is sent; shares add up to 1. Photos go to `model`, not to the default."""
    to_photos = {"path": f"/classify?model={model}"}
    cut = [image[: len(image) // 2] for image in digits[:32]]
    spoiled = [*digits[:7], b"not an image"]
    return [
        Kind("raw", 0.60, [raw(image) for image in digits]),
        Kind("multipart", 0.12, [multipart(image) for image in digits]),
        Kind("json", 0.12, [encoded(image) for image in digits]),
        Kind("photo", 0.02, [raw(image, **to_photos) for image in photos]),
        Kind("batch", 0.03, [batch(spoiled)]),
        Kind("broken", 0.08, [raw(image) for image in cut]),
        Kind("left", 0.03, [raw(image) for image in digits], leaves=True),
    ]


class Soak:
    """Sends a fixed number of requests over some connections, watching the service."""

    def __init__(self, service: Service, kinds: Sequence[Kind], *, seed: int) -> None:
        self._service = service
        self._kinds = kinds
        self._rng = random.Random(seed)  # noqa: S311  a load, not a secret
        self.outcomes: Counter[str] = Counter()
        self.samples: list[Usage] = []
        self._sent = 0

    async def run(self, requests: int, *, connections: int) -> None:
        """Send them all; samples are spread evenly over them."""
        every = max(requests // SAMPLES, 1)
        pool = Pool(self._service.target, connections=connections)

        async def one_client() -> None:
            while self._sent < requests:
                self._sent += 1
                if self._sent % every == 0:
                    self.samples.append(self._service.usage())
                await self._one(pool)

        await asyncio.gather(*(one_client() for _ in range(connections)))
        await pool.close()

    async def _one(self, pool: Pool) -> None:
        weights = [kind.share for kind in self._kinds]
        kind = self._rng.choices(self._kinds, weights)[0]
        request = self._rng.choice(kind.bodies).request
        if kind.leaves:
            await leave(self._service.target, request)
            self.outcomes["left"] += 1
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                status = str((await pool.send(request)).status)
        except (ConnectionBrokenError, ResponseError, TimeoutError) as error:
            status = type(error).__name__
        self.outcomes[f"{kind.name} {status}"] += 1


async def leave(target: Target, request: bytes) -> None:
    """Send a request and hang up without reading."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(request)
        await writer.drain()
        writer.transport.abort()
        await writer.wait_closed()


def judge(samples: Sequence[Usage]) -> dict[str, Any]:
    """Whether the samples after the warm-up are flat."""
    steady = samples[int(len(samples) * WARM_SHARE) :]
    rss_mb = [usage.rss_mb for usage in steady]
    middle = statistics.median(rss_mb)
    quarter = max(len(steady) // 4, 1)
    first, last = steady[:quarter], steady[-quarter:]
    return {
        "rss_mb": {"median": middle, "least": min(rss_mb), "most": max(rss_mb)},
        "rss_spread": max(max(rss_mb) - middle, middle - min(rss_mb)) / middle,
        "threads": [max(u.threads for u in first), max(u.threads for u in last)],
        "files": [max(u.files for u in first), min(u.files for u in last)],
        "flat": max(rss_mb) <= middle * (1 + TOLERANCE)
        and min(rss_mb) >= middle * (1 - TOLERANCE),
        "no_leaks": max(u.threads for u in last) <= max(u.threads for u in first)
        and min(u.files for u in last) <= max(u.files for u in first),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print and write."""
    parser = command_line("bench.soak", __doc__)
    add_models(parser)
    add_images(parser)
    parser.add_argument("--requests", type=count, default=200_000)
    parser.add_argument("--connections", type=count, default=32)
    parser.add_argument("--seed", type=int, default=0)
    add_record(parser)
    options = parser.parse_args(arguments)
    chosen = {"images": options.images, "models": options.models}
    small, large = (
        load_workload(name, model=options.model, **chosen)
        for name in ("digits", "photos")
    )
    kinds = mixture(small.images, large.images, model=large.bundle.name)
    names = dict.fromkeys((small.bundle.name, large.bundle.name))
    probe = raw(small.images[0])
    with serving(options.models, ",".join(names), probe=probe) as service:
        soak = Soak(service, kinds, seed=options.seed)
        run(soak.run(options.requests, connections=options.connections))
    verdict = judge(soak.samples)
    print(dict(sorted(soak.outcomes.items())))
    print(verdict)
    record = {
        "requests": options.requests,
        "models": list(names),
        "outcomes": dict(sorted(soak.outcomes.items())),
        **verdict,
        "samples": [dataclasses.asdict(usage) for usage in soak.samples],
    }
    if options.json is not None:
        write_record(options.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
