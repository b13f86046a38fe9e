"""Members that die, cannot be started or shall end: small programs in their place."""

import asyncio
import json
import socket
import sys
from contextlib import ExitStack, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.crew import Crew, Order
from service.logs import build_log
from service.neighbors import Neighbors
from service.server import bind
from service.settings import Settings

LISTENS_AND_DIES = """
import json, socket, sys
order = json.loads(sys.stdin.readline())
socket.socket(fileno=order["listener"]).listen()
"""
OFFERS_ITS_PAGE_AND_DIES = """
import json, pathlib, sys
order = json.loads(sys.stdin.readline())
pathlib.Path(order["folder"], f"member-{order['number']}.sock").touch()
"""
STAYS = """
import sys
sys.stdin.read()
"""


CLOSES_ITS_PORT_AND_STAYS = """
import json, pathlib, signal, socket, sys
order = json.loads(sys.stdin.readline())
listener = socket.socket(fileno=order["listener"])
listener.listen()
def close(*_):
    listener.close()
    pathlib.Path(order["folder"], "closed").touch()
signal.signal(signal.SIGTERM, close)
pathlib.Path(order["folder"], "listens").touch()
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
                [Order(1, tmp_path, {})],
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
    async with asyncio.timeout(20):
        while built.log.getvalue().count("member died") < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return [json.loads(line) for line in built.log.getvalue().splitlines()]


async def end(crew: Crew) -> None:
    """Stop it; its members need no time for that."""
    crew.terminate()
    async with asyncio.timeout(10):
        await crew.stopped()


async def appears(path: Path) -> None:
    """Wait for a file that a member writes."""
    async with asyncio.timeout(20):
        while not path.exists():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)


async def connects(port: int) -> bool:
    """Whether a connection is taken or would wait, and not be refused."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


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
    async with asyncio.timeout(10):
        while not built.taken:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    peer = built.taken[0].getpeername()
    mine = writer.get_extra_info("sockname")
    writer.close()
    await end(built.crew)

    assert peer == mine


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
