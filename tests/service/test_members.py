"""Members that die, cannot be started or shall end: small programs in their place."""

import asyncio
import errno
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from classifier.bundle import load_bundle
from classifier.manifest import Manifest
from service.address import bind
from service.bundles import find_bundles
from service.crew import GRACE_S, LOOK_EVERY_S, REFUSED_AGAIN_S, Crew, _answers
from service.engine.engine import LaneEngine
from service.errors import BundleChangedError, SettingsError
from service.files import MOST_FILES, raise_descriptors
from service.leader import MAX_TMPDIR, Leader, socket_folder
from service.logs import build_log
from service.metrics import Metrics
from service.neighbors import Neighbors, told_path
from service.order import REFUSED, Order, check_same, fingerprints
from service.serving import Serving
from service.settings import Settings, load_settings
from service.shared.slots import Slots
from service.watchdog import SILENT_LOOKS
from tests.service.conftest import until
from tests.synthetic import make_bundle

LISTENS_AND_DIES = """
import json, socket, sys
order = json.loads(sys.stdin.readline())
socket.socket(fileno=order["listener"]).listen()
"""
OFFERS_ITS_PAGE_AND_DIES = """
import json, pathlib, sys
order = json.loads(sys.stdin.readline())
pathlib.Path(sys.argv[-1], f"member-{order['number']}.sock").touch()
"""
REFUSES = f"""
{LISTENS_AND_DIES}
sys.exit({REFUSED})
"""
SECOND_STAYS = f"""
{LISTENS_AND_DIES}
if order["number"] == 2:
    sys.stdin.read()
"""
STAYS = """
import sys
sys.stdin.read()
"""
SERVES_THE_SECOND_TIME = f"""
{LISTENS_AND_DIES}
import pathlib
again = pathlib.Path(sys.argv[-1], "again")
if again.exists():
    pathlib.Path(sys.argv[-1], "member-1.sock").touch()
    sys.stdin.read()
again.touch()
"""
LOADS_THE_SECOND_TIME = f"""
{LISTENS_AND_DIES}
import pathlib, signal
again = pathlib.Path(sys.argv[-1], "again")
if again.exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path(sys.argv[-1], "loads").touch()
    sys.stdin.read()
again.touch()
"""
WRITES_ITS_PORT_AND_STAYS = """
import json, pathlib, sys
order = json.loads(sys.stdin.readline())
new = pathlib.Path(sys.argv[-1], "new")
new.write_text(str(order["settings"]["port"]))
new.rename(new.with_name("port"))
sys.stdin.read()
"""
CLOSES_ITS_PORT_AND_STAYS = """
import json, pathlib, signal, socket, sys
order = json.loads(sys.stdin.readline())
listener = socket.socket(fileno=order["listener"])
listener.listen()
def close(*_):
    listener.close()
    pathlib.Path(sys.argv[-1], "closed").touch()
signal.signal(signal.SIGTERM, close)
pathlib.Path(sys.argv[-1], "listens").touch()
while True:
    signal.pause()
"""


def accept(listener: socket.socket) -> socket.socket:
    """Take one connection; where none waits, a socket of its own."""
    listener.setblocking(False)
    with suppress(OSError):
        return listener.accept()[0]
    return socket.socket()


@pytest.fixture
def crew(tmp_path, monkeypatch):
    """`crew(program, again_s=(0.1, 30))`: its members run that program of Python."""
    with ExitStack() as sockets:

        def build(program: str, *, again_s: tuple[float, ...]) -> SimpleNamespace:
            path, log = tmp_path / "member", StringIO()
            path.write_text(f"#!{sys.executable}\n{program}")
            path.chmod(0o700)
            monkeypatch.setattr(sys, "executable", str(path))
            monkeypatch.setattr("service.crew.RESTART_AFTER_S", again_s)
            settings = Settings(log_format="json")
            listener = sockets.enter_context(bind("127.0.0.1", 0, shared=True))
            crew = Crew(settings, listener, build_log(settings, log))
            taken: list[socket.socket] = []
            crew.start(
                [Order(1, tmp_path, {}, {})],
                take=lambda orphan: taken.append(sockets.enter_context(accept(orphan))),
            )
            return SimpleNamespace(
                crew=crew,
                path=path,
                log=log,
                port=listener.getsockname()[1],
                taken=taken,
            )

        yield build


async def deaths(built: SimpleNamespace, count: int) -> list[dict[str, object]]:
    """The log, when so many members have died."""
    await until(
        lambda: built.log.getvalue().count("member died") >= count, every_s=0.01
    )
    return [json.loads(line) for line in built.log.getvalue().splitlines()]


async def end(crew: Crew) -> None:
    """Stop it; its members need no time for that."""
    crew.terminate()
    async with asyncio.timeout(10):
        await crew.stopped()


async def appears(path: Path) -> None:
    """Wait for a file that a member writes."""
    await until(path.exists, every_s=0.01)


async def connects(port: int) -> bool:
    """Whether a connection is taken or would wait, and not be refused."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def test_a_member_that_dies_before_it_is_told_anything_is_started_again(
    crew, monkeypatch
):
    """uvloop, on which a service runs, raises where such a process is written to."""
    uvloop = pytest.importorskip("uvloop")
    start = asyncio.create_subprocess_exec

    async def start_and_die(*given, **named):
        process = await start(*given, **named)
        await process.wait()
        return process

    async def lead():
        built = crew("import sys", again_s=(0.01,))
        lines = await deaths(built, 3)
        await end(built.crew)
        return lines

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_die)
    lines = uvloop.run(lead())

    assert [(line["event"], line["code"]) for line in lines] == [("member died", 0)] * 3


async def test_who_has_connected_to_a_member_that_is_gone_is_served_at_the_end(crew):
    """The leader closes the socket of that member, and would reset them with it."""
    built = crew(LISTENS_AND_DIES, again_s=(30.0,))
    await deaths(built, 1)
    late = socket.create_connection(("127.0.0.1", built.port))  # no turn of the loop
    await end(built.crew)
    mine = late.getsockname()
    late.close()

    assert mine in [taken.getpeername() for taken in built.taken[:1]]


async def test_a_member_that_serves_again_has_its_connections_for_itself(crew):
    """Its leader, which has taken them meanwhile, may leave HTTP to its members."""
    built = crew(SERVES_THE_SECOND_TIME, again_s=(0.01, 30.0))
    await deaths(built, 1)
    async with asyncio.timeout(20):
        taken = -1
        while len(built.taken) > taken:
            taken = len(built.taken)
            await connects(built.port)
            await asyncio.sleep(0.01)
    await end(built.crew)


async def test_a_member_that_is_gone_is_watched_no_longer(crew):
    """It would be told of as hanging, some time after it has ended."""
    built = crew(LISTENS_AND_DIES, again_s=(30.0,))
    await deaths(built, 1)
    await asyncio.sleep(0)
    at_work = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
    await end(built.crew)

    assert "Crew._keep" in at_work
    assert "Crew._watch" not in at_work


async def test_members_share_the_lanes_and_serve_the_graphs_of_their_leader(
    tmp_path, monkeypatch
):
    """More lanes than cores would hold each other up, and another graph of a bundle
    would answer otherwise. Each has one at least."""
    make_bundle(tmp_path, "colors")
    monkeypatch.setattr("service.leader.available_cores", lambda: 2)
    settings = Settings(models=tmp_path)
    engine = LaneEngine(settings)
    await engine.start()
    engine.limit_lanes(3)  # it may have had one, on this machine
    with bind("127.0.0.1", 0, shared=True) as listener:
        leader = Leader(settings, engine, listener, build_log(settings))
        orders = leader._divide(tmp_path, 3)
    lanes = len(engine._lanes._lanes)
    await engine.close()

    said = [order.said(settings, 7) for order in orders]
    assert [each["number"] for each in said] == [1, 2]
    assert [each["settings"]["lanes"] for each in said] == [1, 1]
    assert [each["precisions"] for each in said] == [{"colors/1": "fp32"}] * 2
    assert lanes == 1


async def test_only_for_a_quick_restart_do_connections_wait(crew):
    """Half a minute in the backlog of a member that keeps dying is no service."""
    built = crew(LISTENS_AND_DIES, again_s=(0.5, 30.0))
    await deaths(built, 1)
    quick = await connects(built.port)
    await deaths(built, 2)
    slow = await connects(built.port)
    await end(built.crew)

    assert (quick, slow) == (True, False)


async def test_who_connects_while_a_member_is_replaced_is_served_by_the_leader(crew):
    """A start loads models, which takes longer than anybody waits for a connection."""
    built = crew(LISTENS_AND_DIES, again_s=(30.0,))
    await deaths(built, 1)
    _, writer = await asyncio.open_connection("127.0.0.1", built.port)
    await until(lambda: built.taken, every_s=0.01)
    peer = built.taken[0].getpeername()
    mine = writer.get_extra_info("sockname")
    writer.close()
    await end(built.crew)

    assert peer == mine


async def test_who_connects_while_a_member_loads_at_the_end_is_served_by_the_leader(
    crew, tmp_path
):
    """It holds its port until it has loaded and sees that it shall end."""
    built = crew(LOADS_THE_SECOND_TIME, again_s=(0.01, 30.0))
    await appears(tmp_path / "loads")
    built.crew.terminate()
    during = await connects(built.port)
    await until(lambda: built.taken, every_s=0.01)
    built.crew.kill()
    await end(built.crew)

    assert during
    assert not await connects(built.port)


async def test_a_member_that_dies_before_it_listens_keeps_its_leader_from_nothing(crew):
    """Nobody can have connected; the loop turned for its socket all the time."""
    built = crew("import sys", again_s=(30.0,))
    await deaths(built, 1)
    for _ in range(10):
        await asyncio.sleep(0)
    called = len(built.taken)
    await end(built.crew)

    assert called == 0


async def test_nobody_waits_for_a_member_that_has_closed_its_port(crew, tmp_path):
    """The leader holds the same socket, and would reset them at the end."""
    built = crew(CLOSES_ITS_PORT_AND_STAYS, again_s=(30.0,))
    await appears(tmp_path / "listens")
    before = await connects(built.port)
    built.crew.terminate()
    await appears(tmp_path / "closed")
    after = await connects(built.port)
    built.crew.kill()
    await end(built.crew)

    assert (before, after) == (True, False)


async def test_a_member_that_died_is_not_taken_for_one_that_serves(crew, tmp_path):
    """A leader hands over when all offer their pages, and a dead one would count."""
    built = crew(OFFERS_ITS_PAGE_AND_DIES, again_s=(30.0,))
    await deaths(built, 1)
    others = Neighbors(tmp_path, "leader", bytes, str).others
    await end(built.crew)

    assert others == []


async def test_a_member_is_told_the_port_that_was_free(crew, tmp_path):
    """It is no free port for it, and its errors name it."""
    built = crew(WRITES_ITS_PORT_AND_STAYS, again_s=(30.0,))
    await appears(tmp_path / "port")
    await end(built.crew)

    assert (tmp_path / "port").read_text() == str(built.port)


async def test_a_crew_is_deserted_only_when_no_member_is_left(crew, tmp_path):
    """Else the leader of a shared engine would serve beside those that live."""
    built = crew(SECOND_STAYS, again_s=(0.01, 30.0))
    built.crew.start([Order(2, tmp_path, {}, {})], take=lambda _: None)
    await deaths(built, 2)
    deserted = built.crew.deserted.is_set()
    await end(built.crew)

    assert not deserted


async def test_a_crew_is_deserted_no_longer_when_a_member_is_started_again(crew):
    """Its leader would take the port back as soon as it had left it to that."""
    built = crew(LISTENS_AND_DIES, again_s=(0.01, 0.1))
    async with asyncio.timeout(20):
        await built.crew.deserted.wait()
        await until(lambda: not built.crew.deserted.is_set(), every_s=0.01)
    await end(built.crew)


async def test_a_member_that_cannot_be_started_is_tried_again(crew):
    """A machine that has no process or memory left may have some later."""
    built = crew(LISTENS_AND_DIES, again_s=(0.01,))
    built.path.unlink()
    lines = await deaths(built, 2)
    await end(built.crew)

    assert "No such file" in lines[0]["error"]
    assert lines[1]["again_s"] == 0.01


async def test_the_end_does_not_wait_for_a_restart(crew):
    """Nobody needs the member that would be started then."""
    built = crew(LISTENS_AND_DIES, again_s=(30.0,))
    await deaths(built, 1)

    await end(built.crew)


async def test_members_are_told_to_drain(crew, tmp_path):
    """The end would wait for all of them, and then kill them at what they are at."""
    built = crew(WRITES_ITS_PORT_AND_STAYS, again_s=(30.0,))
    await appears(tmp_path / "port")

    await end(built.crew)

    assert built.log.getvalue() == ""  # that they end then is nothing to tell


@pytest.mark.parametrize("told", [Crew.terminate, Crew.kill])
async def test_a_member_that_has_just_ended_does_not_keep_the_others(
    crew, tmp_path, told
):
    """From hearing that they shall end, too: whoever stops a service may signal all."""
    built = crew(WRITES_ITS_PORT_AND_STAYS, again_s=(30.0,))
    await appears(tmp_path / "port")
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    built.crew._members = {2: ended, **built.crew._members}

    told(built.crew)

    await until(lambda: 1 not in built.crew._members, every_s=0.01)
    await end(built.crew)


async def test_a_member_that_is_just_being_started_ends_as_well(crew, monkeypatch):
    """It was not there yet when the others were told."""
    start = asyncio.create_subprocess_exec
    built = crew(STAYS, again_s=(30.0,))

    async def start_meanwhile(*given, **named):
        process = await start(*given, **named)
        built.crew.terminate()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_meanwhile)
    async with asyncio.timeout(10):
        await built.crew.stopped()


async def test_a_member_that_dies_after_a_long_life_is_started_again_at_full_speed(
    crew,
):
    """As after its first death: it does not keep dying."""
    built = crew("import time; time.sleep(0.1)", again_s=(0.01, 0.05))
    lines = await deaths(built, 3)
    await end(built.crew)

    assert [line["again_s"] for line in lines] == [0.01] * 3


async def test_a_member_that_is_silent_now_and_then_is_left_alone(
    tmp_path, monkeypatch
):
    """Only one that is silent at several looks in a row hangs, in the hang timeout."""
    order, killed, slept_s = Order(1, tmp_path, {}, {}), [], set()
    order.page.touch()
    sleep = asyncio.sleep

    async def short(seconds: float) -> None:
        slept_s.add(seconds)
        await sleep(0)

    looks = [*[False] * (SILENT_LOOKS - 1), True] * 2

    async def answers(path: Path) -> bool:
        answered = looks.pop(0)
        if not looks:
            path.unlink()  # noqa: ASYNC240 - it drains
        return answered

    monkeypatch.setattr("service.crew._answers", answers)
    monkeypatch.setattr(asyncio, "sleep", short)
    member = SimpleNamespace(kill=lambda: killed.append(True))
    settings = Settings(log_format="json", hang_timeout_s=100)
    with bind("127.0.0.1", 0) as listener:
        crew = Crew(settings, listener, build_log(settings, StringIO()))
        await crew._watch(order, member, listener)

    assert killed == []
    assert looks == []
    assert slept_s == {100 / SILENT_LOOKS}


async def test_a_member_that_hangs_while_it_loads_is_killed_and_replaced(crew):
    """Its leader would take its connections for good."""
    built = crew(STAYS, again_s=(30.0,))
    built.crew._loading_s = LOOK_EVERY_S
    lines = await deaths(built, 1)
    await end(built.crew)

    assert [line["event"] for line in lines] == ["member hangs", "member died"]
    assert lines[1]["code"] == -signal.SIGKILL


@pytest.mark.parametrize(
    ("hang_timeout_s", "loaded_s", "loading_s"),
    [(30, 1, 60), (30, 90, 900), (86_400, 90, 86_400)],
)
async def test_a_member_may_load_for_far_longer_than_its_leader_has(
    hang_timeout_s, loaded_s, loading_s
):
    """All load at once, and one that is killed too early would never serve."""
    settings = Settings(log_format="json", hang_timeout_s=hang_timeout_s)
    with bind("127.0.0.1", 0) as listener:
        crew = Crew(settings, listener, build_log(settings, StringIO()))
        crew.start([], take=accept, loaded_s=loaded_s)

    assert crew._loading_s == loading_s


async def test_members_have_the_notice_of_their_drain_beside_its_time(
    crew, monkeypatch, tmp_path
):
    """For the one they still serve, and for the other they finish what they have. One
    that will not end then is killed, and does not hold the port for ever.
    """
    waited_s = []

    async def wait(tasks, **given):
        waited_s.append(given["timeout"])
        return set(), set(tasks)

    built = crew(WRITES_ITS_PORT_AND_STAYS, again_s=(30.0,))
    built.crew._settings = Settings(drain_notice_s=100, drain_timeout_s=20)
    await appears(tmp_path / "port")
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "wait", wait)
        await built.crew.stopped()
    (killed,) = await deaths(built, 1)
    await end(built.crew)

    assert waited_s == [100 + 20 + GRACE_S]
    assert killed["code"] == -signal.SIGKILL


async def test_a_member_that_refuses_its_bundles_is_left_alone_for_minutes(crew):
    """Its next start would end alike, and others serve what comes to the port."""
    built = crew(REFUSES, again_s=(0.01,))
    await until(lambda: "member" in built.log.getvalue(), every_s=0.01)
    open_yet = await connects(built.port)
    await end(built.crew)

    (said,) = map(json.loads, built.log.getvalue().splitlines())
    assert (said["event"], said["again_s"]) == ("member refuses", REFUSED_AGAIN_S)
    assert not open_yet


def loaded(models: Path) -> Manifest:
    """Of version 1, as the leader has it."""
    return load_bundle(models / "colors", 1).manifest


def test_a_member_serves_the_version_that_the_leader_has_loaded(tmp_path):
    """Also one that is started again when there is a newer one."""
    make_bundle(tmp_path, "colors")
    order = Order(1, tmp_path, {}, fingerprints([loaded(tmp_path)]))
    make_bundle(tmp_path, "colors", version=2)

    said = order.said(Settings(models=tmp_path), 3)

    (found,) = find_bundles(load_settings(**json.loads(json.dumps(said["settings"]))))
    assert found.manifest.version == 1


def test_a_member_refuses_a_bundle_that_was_written_anew(tmp_path):
    """Half of all requests would be answered by another network."""
    make_bundle(tmp_path, "colors")
    known = fingerprints([loaded(tmp_path)])
    check_same([loaded(tmp_path)], known)
    make_bundle(tmp_path / "new", "colors", class_maps=True)

    with pytest.raises(BundleChangedError, match="colors/1 has changed"):
        check_same([loaded(tmp_path / "new")], known)


def test_a_member_whose_bundle_has_changed_says_so_and_loads_nothing(tmp_path):
    """In one line of the log, and with a status that the crew knows."""
    make_bundle(tmp_path, "colors")
    order = Order(1, tmp_path, {}, fingerprints([loaded(tmp_path)]))
    shutil.rmtree(tmp_path / "colors")
    make_bundle(tmp_path, "colors", class_maps=True)
    for graph in tmp_path.rglob("*.onnx"):  # to load it would be another error
        graph.unlink()

    with bind("127.0.0.1", 0) as listener:
        settings = Settings(models=tmp_path, log_format="json")
        member = subprocess.run(
            [sys.executable, "-m", "service.member", str(tmp_path / "sockets")],
            input=json.dumps(order.said(settings, listener.fileno())) + "\n",
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert (member.returncode, member.stderr) == (REFUSED, "")
    (line,) = map(json.loads, member.stdout.splitlines())
    assert line["event"] == "refused"
    assert "colors/1 has changed" in line["reason"]


def test_a_member_that_gets_no_order_leaves_nothing_behind(tmp_path):
    """Its leader has ended between two lines, and nobody else knows of the folder."""
    folder = tmp_path / "linnaeus-sockets"
    folder.mkdir()

    member = start_without_order(folder)

    assert (member.returncode, member.stdout, member.stderr) == (1, "", "")
    assert not folder.exists()


def test_a_member_that_a_person_starts_removes_no_folder_of_theirs(tmp_path):
    (tmp_path / "photo.jpg").touch()

    assert start_without_order(tmp_path).returncode == 1

    assert (tmp_path / "photo.jpg").exists()


def start_without_order(folder):
    """A member whose leader is gone before it has said a word."""
    return subprocess.run(
        [sys.executable, "-m", "service.member", str(folder)],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_leader_without_descriptors_takes_no_member_for_one_that_hangs(
    tmp_path,
):
    """It cannot ask; nothing says that the member would not answer."""
    neighbors = Neighbors(tmp_path, "member-1", lambda: b"", lambda: None)
    await neighbors.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)  # the lowest that is free
    os.close(free)

    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        answers = await _answers(tmp_path / "member-1.sock")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await neighbors.close()

    assert answers


def test_a_service_may_open_what_the_system_allows():
    """The soft limit is for programs that still call `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        raise_descriptors()
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert raised == min(hard, MOST_FILES)


def test_a_folder_whose_name_is_too_long_for_sockets_is_not_used(monkeypatch, tmp_path):
    """Their paths have room for some hundred bytes."""
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    folder = socket_folder()
    folder.rmdir()

    assert len(str(folder)) < 80
    assert list(long.iterdir()) == []


def test_without_a_folder_for_sockets_the_error_says_what_to_set(monkeypatch, tmp_path):
    """Its text is all that somebody sees who starts the service."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    with pytest.raises(SettingsError, match=f"set TMPDIR.* at most {MAX_TMPDIR} bytes"):
        socket_folder()


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_folder_for_sockets_may_have_as_many_bytes_as_the_error_says(
    monkeypatch, beyond
):
    """One more, and it is made elsewhere."""
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        wanted = Path(base, "x" * (MAX_TMPDIR + beyond - len(base) - 1))
        wanted.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(wanted))

        folder = socket_folder()
        folder.rmdir()

    assert (folder.parent == wanted) == (beyond == 0)


async def is_refused(settings, monkeypatch, *, why):
    """A leader of several processes does not start, and leaves no folder behind."""
    engine = LaneEngine(settings)
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as base,
        bind("127.0.0.1", 0, shared=True) as listener,
    ):
        monkeypatch.setattr(tempfile, "tempdir", base)
        leader = Leader(settings, engine, listener, build_log(settings))
        with pytest.raises(SettingsError, match=why):
            await leader.taken(Serving(settings, engine, Metrics()), None)
        left = os.listdir(base)

    assert left == []


async def test_without_memory_to_share_the_error_does_not_speak_of_folders(
    monkeypatch,
):
    """And what was made for the sockets is gone."""

    def full(size: int) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("service.leader.open_memory", full)
    settings = Settings(processes=2, engine="shared")

    await is_refused(settings, monkeypatch, why="LINNAEUS_QUEUE_CAPACITY lower")


async def test_without_room_for_a_socket_the_error_says_what_to_set(monkeypatch):
    """A full disk may have room for the folder and for nothing in it."""

    async def full(_: Neighbors) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Neighbors, "open", full)

    await is_refused(
        Settings(processes=2), monkeypatch, why=r"No space left .* set TMPDIR"
    )


async def test_a_front_end_has_a_slot_for_every_image_that_may_be_under_way(
    tmp_path, monkeypatch
):
    """Singles and batches of each model have room of their own. It has a thread to
    decode also where there are fewer cores than processes."""
    monkeypatch.setattr("service.leader.available_cores", lambda: 1)
    for name in ("colors", "other"):
        make_bundle(tmp_path, name)
    settings = Settings(models=tmp_path, queue_capacity=64, engine="shared")
    engine = LaneEngine(settings)
    await engine.start()
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as sockets,
        bind("127.0.0.1", 0, shared=True) as listener,
    ):
        leader = Leader(settings, engine, listener, build_log(settings))
        (order,) = await leader._share(Path(sockets), 2)
        slots = Slots.of(order.memory, order.host["slot_bytes"]).count
        os.close(order.memory)
        await leader.ended()
    await engine.close()

    assert slots == 2 * 2 * 64
    assert order.host["threads"] == 1


async def test_the_port_is_left_to_members_when_all_of_them_serve(
    tmp_path, monkeypatch
):
    """The first alone would have the connections of all."""
    monkeypatch.setattr("service.leader.LOOK_EVERY_S", 0.0)
    settings, closed = Settings(), []
    neighbors = SimpleNamespace(others=["member-1"])
    port = SimpleNamespace(close_port=lambda: closed.append(len(neighbors.others)))
    with bind("127.0.0.1", 0, shared=True) as listener:
        leader = Leader(settings, LaneEngine(settings), listener, build_log(settings))
        handing_over = asyncio.create_task(leader._hand_over(neighbors, port, 2))
        for _ in range(5):
            await asyncio.sleep(0)
        neighbors.others.append("member-2")
        await until(lambda: closed)
        handing_over.cancel()

    assert closed == [2]


@pytest.fixture
def leader(tmp_path):
    """One that has a folder for sockets, and no members."""
    folder, settings = tmp_path / "sockets", Settings()
    folder.mkdir()
    with bind("127.0.0.1", 0, shared=True) as listener:
        leads = Leader(settings, LaneEngine(settings), listener, build_log(settings))
        leads._neighbors = Neighbors(folder, leads.name, bytes, str)
        yield leads


async def test_a_port_that_was_taken_back_is_not_taken_again(leader):
    """Its first socket would be forgotten, and who waits in it reset at the end."""
    opened = []

    async def open_port(listener: socket.socket) -> None:
        opened.append(listener.close())

    leader._left_to_members = SimpleNamespace(open_port=open_port)
    for _ in range(2):
        await leader._take_back()

    assert len(opened) == 1


SERVES_LATE = f"""
{LISTENS_AND_DIES}
import pathlib, time
time.sleep(2.5)
pathlib.Path(sys.argv[-1], "member-1.sock").touch()
sys.stdin.read()
"""


async def test_a_member_that_loads_is_given_all_of_its_time(crew, tmp_path):
    """One that is killed too early is so each time, and never serves."""
    built = crew(SERVES_LATE, again_s=(30,))
    built.crew._loading_s = 10.0

    await appears(tmp_path / "member-1.sock")
    await end(built.crew)

    assert "hangs" not in built.log.getvalue()


async def test_a_leader_without_a_socket_to_take_the_port_back_ends_all_the_same(
    leader,
):
    """Where descriptors are used up, a signal must still end the service."""

    async def open_port(_: socket.socket) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    leader._settings = leader._settings.model_copy(update={"drain_notice_s": 5})
    leader._left_to_members = SimpleNamespace(open_port=open_port)
    async with asyncio.timeout(20):
        await leader.left()

    assert leader._left_to_members is None


async def test_one_heavy_model_among_cheap_ones_is_served_by_one_process(
    tmp_path, monkeypatch
):
    """It keeps the cores busy, and each process would load it again."""
    make_bundle(tmp_path, "colors")
    monkeypatch.setattr("service.leader.available_cores", lambda: 2)
    settings = Settings(models=tmp_path, processes="auto")
    engine, metrics = LaneEngine(settings), Metrics()
    await engine.start()
    engine.inline.serves_all = False  # as if another model were not cheap
    with bind("127.0.0.1", 0, shared=True) as listener:
        leader = Leader(settings, engine, listener, build_log(settings, StringIO()))
        await leader.taken(Serving(settings, engine, metrics), None)
    await engine.close()

    assert b"\nlinnaeus_processes_wanted 1.0\n" in metrics.page()


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_leader_leaves_no_folder_behind(leader, orderly):
    """Also one that is told twice to end."""
    if orderly:
        await leader.left()
    else:
        leader.cut_off()
    await leader.ended()

    assert not leader._neighbors.folder.exists()


async def test_what_members_have_counted_is_told_while_their_leader_drains(leader):
    """It may need longer than they do; a counter that falls has begun again."""
    counted = "# HELP a A.\n# TYPE a counter\na 3.0\n"
    told_path(leader._neighbors.folder, "member-1").write_text(counted)

    await leader.left()

    assert (await leader._neighbors.merged_page()).decode() == counted


async def test_a_leader_ends_after_its_members(leader, monkeypatch):
    """As the first process of a container, it would take them along at their work."""
    gone = asyncio.Event()
    monkeypatch.setattr(leader._crew, "stopped", gone.wait)
    leaving = asyncio.create_task(leader.left())
    for _ in range(5):
        await asyncio.sleep(0)
    early = leaving.done()
    gone.set()
    await leaving

    assert not early
