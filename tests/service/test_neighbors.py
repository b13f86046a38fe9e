"""Pages of processes that come, hang and go are one page, whose counters never fall."""

import asyncio
import socket
from contextlib import AsyncExitStack, ExitStack, suppress

import pytest
import uvloop

from service.metrics import Metrics
from service.neighbors import Neighbors, counts_of, merge, page_path
from tests.lines import lines_executed

PAGE = """\
# HELP linnaeus_images_total Images.
# TYPE linnaeus_images_total counter
linnaeus_images_total{{model="a"}} {images}
# HELP linnaeus_queued_images Images that wait.
# TYPE linnaeus_queued_images gauge
linnaeus_queued_images 5.0
# HELP linnaeus_batch_size Images in the run.
# TYPE linnaeus_batch_size histogram
linnaeus_batch_size_bucket{{le="+Inf"}} {images}
linnaeus_batch_size_count {images}
linnaeus_batch_size_sum {images}
# HELP linnaeus_ready 1 while the service takes traffic.
# TYPE linnaeus_ready gauge
linnaeus_ready 1.0
"""


@pytest.fixture
async def serving(tmp_path):
    """`await serving("member-1", images=3)`: one more process, that offers its page."""
    async with AsyncExitStack() as stack:

        async def start(
            name: str, *, images: int = 0, unready: str | None = None
        ) -> Neighbors:
            def page() -> bytes:
                return PAGE.format(images=float(images)).encode()

            process = Neighbors(tmp_path, name, page, lambda: unready)
            await process.open()
            stack.push_async_callback(process.close)
            return process

        yield start


async def found(asked: Neighbors) -> dict[str, float]:
    """What the merged page of a process says."""
    lines = (await asked.merged_page()).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.partition("{")[0]: float(value) for name, value in pairs}


@pytest.mark.parametrize("unready", ["member-1", "member-2"])
async def test_one_of_the_others_that_is_not_ready_is_enough(serving, unready):
    """Also behind one that is."""
    leader = await serving("leader")
    for name in ("member-1", "member-2"):
        await serving(name, unready="lanes hang" if name == unready else None)

    assert await leader.unready() == f"{unready}: lanes hang"


def test_one_whose_backlog_is_full_hangs(tmp_path):
    """It takes no connection, so that nobody can ask; the loop of production says so
    by another error than that of one that is gone."""
    leader = Neighbors(tmp_path, "leader", bytes, lambda: None)
    with ExitStack() as sockets:
        silent = sockets.enter_context(socket.socket(socket.AF_UNIX))
        silent.bind(str(page_path(tmp_path, "member-1")))
        silent.listen(0)
        with suppress(BlockingIOError):
            while True:
                asking = sockets.enter_context(socket.socket(socket.AF_UNIX))
                asking.setblocking(False)
                asking.connect(silent.getsockname())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            said = runner.run(leader.unready())

    assert said == "member-1 hangs"


async def test_a_socket_that_a_killed_process_has_left_does_not_keep_its_gauges(
    serving, tmp_path
):
    """Its queue has gone with it; the next in its place would report it for ever."""
    killed = await serving("member-1", images=3)
    await killed.merged_page()
    await killed.close()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(page_path(tmp_path, "member-1")))
    after = await found(await serving("member-1", images=4))

    assert after["linnaeus_images_total"] == 7
    assert after["linnaeus_queued_images"] == 5


async def test_counts_outlive_their_process_whoever_is_asked(serving):
    """A scrape reaches any of the others; what was true of the process only is gone."""
    leader = await serving("leader", images=1)
    other = await serving("member-2", images=10)
    dies = await serving("member-1", images=100)
    before = await found(leader)
    await dies.close()
    after = await found(other)

    assert before["linnaeus_images_total"] == after["linnaeus_images_total"] == 111
    assert after["linnaeus_batch_size_count"] == 111
    assert before["linnaeus_queued_images"] == 15
    assert after["linnaeus_queued_images"] == 10


async def test_who_has_the_place_of_another_goes_on_from_its_counts(serving):
    """However often it is taken, and whether or not anybody asked meanwhile."""
    leader = await serving("leader", images=1)
    sums = []
    for images in (10, 100, 1_000):
        member = await serving("member-1", images=images)
        sums.append((await found(leader))["linnaeus_images_total"])
        await member.close()
        unasked = await serving("member-1", images=5)
        await unasked.close()
    sums.append((await found(leader))["linnaeus_images_total"])

    assert sums == [11, 111, 1_111, 1_111]


async def test_of_one_that_hangs_the_last_page_counts(serving, tmp_path, monkeypatch):
    """Without it every sum would fall, and rise again. But it is not ready any more."""
    monkeypatch.setattr("service.neighbors.PAGE_TIMEOUT_S", 0.05)
    leader = await serving("leader", images=1)
    member = await serving("member-1", images=100)
    before = await found(leader)
    await member.close()
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(page_path(tmp_path, "member-1")))
        hangs.listen()
        after = await found(leader)

    assert after == before | {"linnaeus_ready": 0}
    assert before["linnaeus_images_total"] == 101
    assert before["linnaeus_ready"] == 1


async def test_one_that_cannot_serve_or_hangs_keeps_traffic_away(
    serving, tmp_path, monkeypatch
):
    """A balancer sees one port, whoever of them is asked."""
    monkeypatch.setattr("service.neighbors.READY_TIMEOUT_S", 0.05)
    leader = await serving("leader")
    await serving("member-1")
    well = await leader.unready()
    sick = await serving("member-2", unready="no lane is alive")
    with_sick = await leader.unready()
    of_itself = await sick.unready()
    await sick.close()
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(page_path(tmp_path, "member-2")))
        hangs.listen()
        with_hung = await leader.unready()

    assert (well, of_itself) == (None, None)
    assert with_sick == "member-2: no lane is alive"
    assert with_hung == "member-2 hangs"


async def test_one_that_starts_anew_does_not_keep_traffic_away(serving, tmp_path):
    """Nobody waits for it: the leader takes what would have come to it."""
    leader = await serving("leader")
    member = await serving("member-1")
    await member.close()
    while_it_loads = await leader.unready()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(page_path(tmp_path, "member-1")))
    just_killed = await leader.unready()

    assert (while_it_loads, just_killed) == (None, None)


@pytest.mark.parametrize("said", [b"", PAGE.encode()[:90]])
async def test_a_page_that_breaks_off_is_none(serving, tmp_path, said):
    """A process may be killed in the middle of it."""

    async def offer(reader, writer):
        await reader.readline()  # or the kernel would tell of the end by an error
        writer.write(said)
        writer.close()

    leader = await serving("leader", images=1)
    member = await serving("member-1", images=100)
    before = await found(leader)
    await member.close()
    path = page_path(tmp_path, "member-1")
    async with await asyncio.start_unix_server(offer, path):
        after = await found(leader)

    assert before == after


async def test_without_room_for_a_file_the_page_is_told_all_the_same(serving, tmp_path):
    """Scrapes matter most when a disk is full."""
    leader = await serving("leader", images=1)
    await serving("member-1", images=100)
    for name in ("leader", "member-1"):
        (tmp_path / f"{name}.new").mkdir()  # so that it cannot be written

    assert (await found(leader))["linnaeus_images_total"] == 101


def page_of(requests: int) -> bytes:
    """A page as it is written, with label values that make trouble if any do."""
    metrics = Metrics()
    for number in range(requests):
        odd = f'a b {{}} "{number}" \\ \n \u2028 # HELP '
        metrics.answered(odd, 200, "ok", 0.5)
    return metrics.page()


def samples_of(page: bytes) -> list[tuple[str, float]]:
    """Name and labels as written, and the value."""
    lines = page.decode().split("\n")
    pairs = (line.rpartition(" ") for line in lines if line.startswith("linnaeus_"))
    return [(name, float(value)) for name, _, value in pairs]


def test_equal_pages_are_twice_the_page_and_look_like_it():
    """The same samples in the same order, whatever stands in a label."""
    page = page_of(3)

    twice = samples_of(merge([page, page]))

    assert twice == [(name, 2 * value) for name, value in samples_of(page)]


def test_what_lasts_of_a_page_is_its_counts():
    """Line for line, with their heads."""
    lasting = counts_of(page_of(1)).decode()

    assert "# TYPE linnaeus_request_seconds histogram\n" in lasting
    assert "gauge" not in lasting
    assert "linnaeus_requests_in_flight" not in lasting


def test_a_scrape_of_many_processes_is_little_work():
    """It is done on the event loop, where 16 pages once took a third of a second.
    Counted in executed lines of Python a line of a page, not in time."""
    pages = [page_of(20)] * 16

    count = lines_executed(lambda: merge(pages))

    assert count < 12 * sum(page.count(b"\n") for page in pages)
