"""pages of several processes → **one metrics page**.

Processes that share a port each count for themselves, and a scrape reaches any one of
them. Each therefore offers its page to the others on a Unix socket in a private folder,
and whoever is asked adds all pages up.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

PATIENCE_S = 1.0  # for a neighbor's page; one that hangs is left out

# Sums would mean nothing for these: all must be ready, the eldest began it.
LEAST = frozenset(("linnaeus_ready", "process_start_time_seconds"))


SampleKey = tuple[str, tuple[tuple[str, str], ...]]  # name, sorted labels


def page_path(folder: Path, name: str) -> Path:
    """Where the process of that name offers its page; there while it serves."""
    return folder / f"{name}.sock"


class Neighbors:
    """This process's page, and those of the processes beside it."""

    def __init__(self, folder: Path, name: str, page: Callable[[], bytes]) -> None:
        self._own = page_path(folder, name)
        self.folder = folder
        self._page = page
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        """Offer this process's page."""
        self._own.unlink(missing_ok=True)  # of a process that died
        self._server = await asyncio.start_unix_server(self._offer, self._own)

    async def close(self) -> None:
        """Offer it no longer."""
        if self._server is not None:
            self._server.close()
            self._own.unlink(missing_ok=True)

    @property
    def others(self) -> list[Path]:
        """Where those beside it offer theirs; each does once its port is open."""
        return [path for path in self.folder.glob("*.sock") if path != self._own]

    async def merged_page(self) -> bytes:
        """The sum of all pages that can be had."""
        pages = await asyncio.gather(*(_fetch(path) for path in self.others))
        return merge([self._page(), *(page for page in pages if page is not None)])

    async def _offer(
        self, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(self._page())
        await writer.drain()
        writer.close()


async def _fetch(path: Path) -> bytes | None:
    """A neighbor's page; None when it is just dying or hangs."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(path)
            page = await reader.read()
            writer.close()
            return page
    except (OSError, TimeoutError):
        return None


def merge(pages: Sequence[bytes]) -> bytes:
    """Add pages of the text exposition format up, sample by sample."""
    if len(pages) == 1:
        return pages[0]
    registry = CollectorRegistry()
    registry.register(_Merged(pages))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, pages: Iterable[bytes]) -> None:
        self._families: dict[str, Metric] = {}
        values: dict[str, dict[SampleKey, list[float]]] = {}
        for page in pages:
            for family in text_string_to_metric_families(page.decode()):
                self._families.setdefault(family.name, family)
                known = values.setdefault(family.name, {})
                for sample in family.samples:
                    key = sample.name, tuple(sorted(sample.labels.items()))
                    known.setdefault(key, []).append(sample.value)
        for name, samples in values.items():
            family = self._families[name]
            family.samples = []
            combined = min if name in LEAST else sum
            for (sample_name, labels), several in samples.items():
                family.add_sample(sample_name, dict(labels), combined(several))

    def collect(self) -> Iterator[Metric]:
        """The families, summed."""
        return iter(self._families.values())
