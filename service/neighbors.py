"""pages of several processes → **one metrics page**, whose counters never fall.

Processes that share a port each count for themselves, and a scrape reaches any one of
them. Each therefore offers its page to the others on a Unix socket in a private folder,
and the one that is scraped adds all pages up.

Prometheus takes a counter that falls for one that began again, and would count all of
it once more. So each process keeps the last page that it gave in a file beside its
socket. That page stands for the process while it hangs, its counts outlive it, and the
next process in its place goes on from them. Only the process of a place writes that
file, so it needs no lock.

On the same socket each says whether it is ready. A balancer sees one port, so any
process that is asked must also report one that hangs or cannot serve.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.utils import floatToGoString

PAGE_TIMEOUT_S = 1.0  # for a neighbor's page; if it hangs, its last page is taken
# For a neighbor's readiness: Kubernetes waits one second for the answer about all.
READY_TIMEOUT_S = 0.5
PAGE, READY = b"page\n", b"ready\n"  # what is asked
END = b"# EOF\n"  # without it, the answer broke off because its process ended

# Not added up, but the least is taken: all must be ready, and the oldest process began
# the service. Neither has labels.
LEAST = frozenset(("linnaeus_ready", "process_start_time_seconds"))
# Added for a process that hangs, whose last page may say that it is ready.
NOT_READY = b"# HELP linnaeus_ready\n# TYPE linnaeus_ready gauge\nlinnaeus_ready 0.0\n"
# Types whose values stay true when their process has ended; gauges do not.
LASTING = frozenset(("counter", "histogram"))


def page_path(folder: Path, name: str) -> Path:
    """Where the process of that name offers its page; there while it serves."""
    return folder / f"{name}.sock"


def told_path(folder: Path, name: str) -> Path:
    """Where it keeps the last page that it gave; there also after its end."""
    return folder / f"{name}.page"


class Neighbors:
    """This process's page, and those of the processes beside it."""

    def __init__(
        self,
        folder: Path,
        name: str,
        page: Callable[[], bytes],
        unready: Callable[[], str | None],
    ) -> None:
        """`page` and `unready` tell of this process alone."""
        self._unready = unready
        self._name = name
        self._own = page_path(folder, name)
        self.folder = folder
        self._page = page
        self._before: Sequence[bytes] = ()  # counts of the processes before this one
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        """Offer this process's page."""
        self._own.unlink(missing_ok=True)  # of a process that died
        told = _told(self.folder, self._name)
        self._before = () if told is None else (told,)
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
        """The sum of all pages, of those that are gone too."""
        # a process that has ended may have left only its last page
        found = (*self.folder.glob("*.sock"), *self.folder.glob("*.page"))
        names = {path.stem for path in found} - {self._name}
        pages = await asyncio.gather(*(self._fetch(name) for name in sorted(names)))
        return merge([self._tell(), *(page for page in pages if page is not None)])

    async def unready(self) -> str | None:
        """Why traffic should stay away from the others; None when it may come.

        One that has ended or still loads has no socket and does not count: the leader
        takes its connections. One that hangs counts: it still gets connections.
        """
        said = await asyncio.gather(*(_readiness(path) for path in self.others))
        return next((reason for reason in said if reason is not None), None)

    async def _offer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with closing(writer), suppress(ConnectionError):
            asked = await reader.readline()
            said = self._tell() if asked == PAGE else (self._unready() or "").encode()
            writer.write(said + END)
            await writer.drain()

    def _tell(self) -> bytes:
        """This process's page with the counts before it, kept before it is given."""
        page = merge([self._page(), *self._before])
        path = told_path(self.folder, self._name)
        new = path.with_suffix(".new")
        with suppress(OSError):  # a full disk, or the end of the service
            new.write_bytes(page)
            new.replace(path)
        return page

    async def _fetch(self, name: str) -> bytes | None:
        """A neighbor's page, or the last that it gave if it ends just now or hangs."""
        try:
            path = page_path(self.folder, name)
            return await ask(path, PAGE, timeout_s=PAGE_TIMEOUT_S)
        except TimeoutError:
            told = _told(self.folder, name)
            return merge([NOT_READY] if told is None else [told, NOT_READY])
        except OSError:
            return _told(self.folder, name)


async def ask(path: Path, question: bytes, *, timeout_s: float) -> bytes:
    """What the process at that socket answers.

    Raises:
        TimeoutError: it says nothing, or not all, within `timeout_s`, or its backlog
            is full.
        OSError: it is gone.
    """
    async with asyncio.timeout(timeout_s):
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except BlockingIOError as error:
            raise TimeoutError("its backlog is full") from error
        with closing(writer):
            writer.write(question)
            said = await reader.read()
    if not said.endswith(END):
        raise ConnectionError("the answer broke off")
    return said.removesuffix(END)


async def _readiness(path: Path) -> str | None:
    """Why traffic should stay away from the process at that socket, if anything."""
    try:
        said = await ask(path, READY, timeout_s=READY_TIMEOUT_S)
    except TimeoutError:
        return f"{path.stem} hangs"
    except OSError:
        return None
    return f"{path.stem}: {said.decode()}" if said else None


def _told(folder: Path, name: str) -> bytes | None:
    """The last page that a process gave, if any; only its counts if it has ended."""
    try:
        page = told_path(folder, name).read_bytes()
    except OSError:
        return None
    return page if page_path(folder, name).exists() else counts_of(page)


def merge(pages: Sequence[bytes]) -> bytes:
    """Add pages of the text exposition format up, sample by sample."""
    return pages[0] if len(pages) == 1 else _written(_added(pages))


def counts_of(page: bytes) -> bytes:
    """A page without what is only true while its process lives."""
    return _written(
        family for family in _added([page]) if family.kind.rpartition(" ")[2] in LASTING
    )


@dataclass(slots=True)
class _Family:
    help: str  # its line, as that of `kind`
    kind: str = ""
    samples: dict[str, float] = field(default_factory=dict)  # by name and labels


def _added(pages: Iterable[bytes]) -> Collection[_Family]:
    """Line by line: all pages are written by the same code, so equal names and labels
    are equal texts. Parsing them as what anybody may have written took 20 ms a page.
    """
    families: dict[str, _Family] = {}
    for page in pages:
        for line in page.decode().split("\n"):
            if line.startswith("# HELP "):
                family = families.setdefault(line.split(" ", 3)[2], _Family(line))
            elif line.startswith("# TYPE "):
                family.kind = line
            elif line:
                _add(family.samples, *line.rsplit(" ", 1))
    return families.values()


def _add(samples: dict[str, float], key: str, value: str) -> None:
    number = float(value)
    if key in samples:
        known = samples[key]
        number = min(known, number) if key in LEAST else known + number
    samples[key] = number


def _written(families: Iterable[_Family]) -> bytes:
    lines: list[str] = []
    for family in families:
        lines += (family.help, family.kind)
        lines += (f"{key} {_number(value)}" for key, value in family.samples.items())
    return "".join(f"{line}\n" for line in lines).encode()


def _number(value: float) -> str:
    """As prometheus-client writes it, which has no types there."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
