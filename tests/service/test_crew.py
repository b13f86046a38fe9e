"""Several processes on one port: spread, counted together, replaced, ended together."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from classifier.hardware import available_cores
from service.leader import processes_wanted
from service.neighbors import merge
from tests.service.conftest import running
from tests.service.processes import Service, serve
from tests.synthetic import SLOW, make_bundle, png

IMAGE = png((200, 30, 90))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one tiny bundle."""
    make_bundle(tmp_path, "colors")
    return tmp_path


def classify(service: Service, image: bytes = IMAGE) -> int:
    """One request on a connection of its own; the status."""
    request = urllib.request.Request(  # noqa: S310
        f"{service.url}/classify", data=image, headers={"Content-Type": "image/png"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        return answer.status


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Process ids below a process."""
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in task.read_text().split()]


def statuses_when_whole_again(service: Service) -> list[int]:
    """Of 20 requests, once the member that has just died was replaced."""
    service.lines.clear()
    service.logged("listening", process="member-1")
    return [classify(service) for _ in range(20)]


def test_members_may_share_the_engine_of_their_leader(models):
    """They speak HTTP and decode; one engine runs the images of all. A member that is
    killed is replaced, and takes nothing else along."""
    with serve(
        models,
        LINNAEUS_PROCESSES="2",
        LINNAEUS_ENGINE="shared",
        LINNAEUS_DECODE="lane",
    ) as service:
        assert service.logged("crew")["engine"] == "shared"
        service.logged("listening", process="member-1")
        service.logged("handed over", members=1)
        before = [classify(service) for _ in range(40)]
        counted = service.metric("linnaeus_images_total", code="ok")
        (member,) = children(service.process)
        os.kill(member, signal.SIGKILL)
        service.logged("member died", member=1)
        service.lines.clear()
        service.logged("listening", process="member-1")
        after = [classify(service) for _ in range(40)]

    assert before == after == [200] * 40
    assert counted == 40


def test_a_leader_whose_engine_is_shared_leaves_http_to_its_members(models):
    """Its lanes would wait for its interpreter, and the device for them."""
    with serve(models, LINNAEUS_PROCESSES="3", LINNAEUS_ENGINE="shared") as service:
        service.logged("handed over", members=2)
        members = children(service.process)
        for member in members:
            os.kill(member, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                urllib.request.urlopen(f"{service.url}/livez", timeout=1)  # noqa: S310
        finally:
            for member in members:
                os.kill(member, signal.SIGCONT)
        assert classify(service) == 200


def test_a_leader_whose_members_cannot_live_serves_again(models):
    """Until they can: a bundle that is just being replaced is no end of the service."""
    with serve(models, LINNAEUS_PROCESSES="2", LINNAEUS_ENGINE="shared") as service:
        service.logged("handed over")
        (models / "colors").rename(models / "elsewhere")
        (member,) = children(service.process)
        os.kill(member, signal.SIGKILL)
        service.logged("took the port back")
        statuses = [classify(service) for _ in range(5)]
        (models / "elsewhere").rename(models / "colors")
        service.lines.clear()
        service.logged("handed over")
        statuses += [classify(service) for _ in range(5)]

    assert statuses == [200] * 10


def test_a_leader_whose_only_member_dies_while_both_drain_serves_to_the_end(models):
    """A balancer has not looked yet, and its clients would be refused."""
    with serve(
        models,
        LINNAEUS_PROCESSES="2",
        LINNAEUS_ENGINE="shared",
        LINNAEUS_DRAIN_NOTICE_S="600",
    ) as service:
        service.logged("handed over")
        (member,) = children(service.process)
        service.process.terminate()
        service.logged("draining")
        os.kill(member, signal.SIGKILL)
        service.logged("took the port back")
        statuses = [classify(service) for _ in range(5)]
        service.process.terminate()
        service.process.communicate(timeout=20)

    assert statuses == [200] * 5


def test_who_has_connected_before_the_port_closes_is_answered(settings_for):
    """Also who was not noticed yet, whom the kernel would reset."""
    with running(settings_for()) as served, ExitStack() as sockets:
        late = [socket.socket() for _ in range(3)]
        done = threading.Event()

        def close():
            for each in late:  # the loop does not turn meanwhile
                sockets.enter_context(each).connect(("127.0.0.1", served.port))
            served.server.close_port()
            served.server.close_port()
            done.set()

        served.server._loop.call_soon_threadsafe(close)
        assert done.wait(20)
        for each in late:
            each.settimeout(20)
            each.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        statuses = [each.recv(15) for each in late]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", served.port))

    assert statuses == [b"HTTP/1.1 200 OK"] * 3


def test_who_has_connected_when_the_port_closes_for_good_is_answered(settings_for):
    """A client that connects anew each time hears `draining`, and no reset."""
    with running(settings_for()) as served, ExitStack() as sockets:
        late = [sockets.enter_context(socket.socket()) for _ in range(3)]
        done = threading.Event()

        def stop():
            for each in late:  # the loop does not turn meanwhile
                each.connect(("127.0.0.1", served.port))
                each.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            asyncio.ensure_future(served.server.shutdown())  # noqa: RUF006
            done.set()

        served.server._loop.call_soon_threadsafe(stop)
        assert done.wait(20)
        for each in late:
            each.settimeout(20)
        statuses = [each.recv(15) for each in late]

    assert statuses == [b"HTTP/1.1 200 OK"] * 3


def test_one_process_a_core_serves_where_http_is_the_limit_or_one_engine_for_all(
    settings_for,
):
    """A model that keeps the cores busy by itself is served by one."""
    chosen = settings_for(processes="auto")

    assert processes_wanted(chosen, light=False, shared=False) == 1
    assert processes_wanted(chosen, light=True, shared=False) == available_cores()
    assert processes_wanted(chosen, light=False, shared=True) == available_cores()
    fixed = settings_for(processes=3)
    assert processes_wanted(fixed, light=False, shared=False) == 3


def test_members_share_the_port_and_the_metrics_page_counts_them_all(models):
    """Whoever is scraped knows of every request."""
    with serve(models, LINNAEUS_PROCESSES="2") as service:
        service.logged("listening", process="member-1")
        statuses = [classify(service) for _ in range(40)]
        counted = service.metric("linnaeus_images_total", code="ok")
        processes = service.metric("linnaeus_processes")
        wanted = service.metric("linnaeus_processes_wanted")

    assert statuses == [200] * 40
    assert counted == 40
    assert (processes, wanted) == (2, 2)


def test_a_member_that_is_killed_is_replaced(models):
    """The service goes on, and is whole again soon."""
    with serve(models, LINNAEUS_PROCESSES="2") as service:
        service.logged("listening", process="member-1")
        (member,) = children(service.process)
        os.kill(member, signal.SIGKILL)
        died = service.logged("member died", member=1)
        left = service.metric("linnaeus_processes")
        wanted = service.metric("linnaeus_processes_wanted")
        statuses = statuses_when_whole_again(service)

    assert (left, wanted) == (1, 2)
    assert died["code"] == -signal.SIGKILL
    assert statuses == [200] * 20


def test_nobody_waits_for_a_member_that_loads_in_place_of_one_that_was_killed(models):
    """Its connections are the leader's until it serves."""
    with serve(models, LINNAEUS_PROCESSES="2") as service:
        service.logged("listening", process="member-1")
        (member,) = children(service.process)
        os.kill(member, signal.SIGKILL)
        service.logged("member died", member=1)
        while not (loading := started_members(service)):
            pass
        os.kill(loading[0], signal.SIGSTOP)
        try:
            statuses = [classify(service) for _ in range(20)]
            ready = readiness(service)
        finally:
            os.kill(loading[0], signal.SIGCONT)
        statuses += statuses_when_whole_again(service)

    assert statuses == [200] * 40
    assert ready == 200


def test_a_member_that_hangs_is_killed_and_replaced(models):
    """A share of all connections would wait for it for ever."""
    with serve(
        models, LINNAEUS_PROCESSES="2", LINNAEUS_HANG_TIMEOUT_S="0.4"
    ) as service:
        service.logged("listening", process="member-1")
        (member,) = children(service.process)
        os.kill(member, signal.SIGSTOP)
        service.logged("member hangs", member=1)
        died = service.logged("member died", member=1)
        statuses = statuses_when_whole_again(service)

    assert died["code"] == -signal.SIGKILL
    assert statuses == [200] * 20


def test_while_a_member_hangs_the_port_is_not_ready(models):
    """Whoever of the others is asked."""
    with serve(models, LINNAEUS_PROCESSES="2") as service:
        service.logged("listening", process="member-1")
        (member,) = children(service.process)
        before = readiness(service)
        os.kill(member, signal.SIGSTOP)
        try:
            while_it_hangs = readiness(service)
        finally:
            os.kill(member, signal.SIGCONT)

    assert (before, while_it_hangs) == (200, 503)


def started_members(service: Service) -> list[int]:
    """Children that are members already, and not a fork that the leader waits for."""
    return [
        pid
        for pid in children(service.process)
        if b"service.member" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def readiness(service: Service) -> int:
    """The status of `/readyz`, from a process that answers at all."""
    while True:
        try:
            with urllib.request.urlopen(f"{service.url}/readyz", timeout=2) as answer:  # noqa: S310
                return answer.status
        except urllib.error.HTTPError as refusal:
            return refusal.code
        except TimeoutError:
            continue


def test_what_a_member_has_counted_outlives_it(models):
    """A counter that falls looks to Prometheus as if it had begun again."""
    with serve(models, LINNAEUS_PROCESSES="2") as service:
        service.logged("listening", process="member-1")
        answered = [classify(service) for _ in range(40)]
        counted = [service.metric("linnaeus_images_total", code="ok")]
        (member,) = children(service.process)
        os.kill(member, signal.SIGKILL)
        service.logged("member died", member=1)
        counted.append(service.metric("linnaeus_images_total", code="ok"))
        answered += statuses_when_whole_again(service)
        counted.append(service.metric("linnaeus_images_total", code="ok"))

    assert answered == [200] * 60
    assert counted == [40, 40, 60]


def test_members_end_with_their_leader_even_when_it_is_killed(models):
    """No orphan keeps the port."""
    with serve(models, LINNAEUS_PROCESSES="2") as service:
        service.logged("listening", process="member-1")
        service.process.kill()
        # the pipe of the log ends only when no process holds it any more
        service.process.communicate(timeout=30)


def test_members_tidy_up_after_a_leader_that_was_killed(models):
    """Each start would leave another folder of sockets behind."""
    with TemporaryDirectory(prefix="tidy-") as folder:  # short, as a socket's path is
        with serve(models, LINNAEUS_PROCESSES="2", TMPDIR=folder) as service:
            service.logged("listening", process="member-1")
            before = list(Path(folder).iterdir())
            service.process.kill()
            service.process.communicate(timeout=30)
        after = list(Path(folder).iterdir())

    assert len(before) == 1
    assert after == []


@pytest.mark.parametrize("engine", ["own", "shared"])
def test_members_whose_leader_is_killed_while_they_load_take_no_port_and_tidy_up(
    models, engine
):
    """What restarts the service needs the port, and each try would leave a folder."""
    with TemporaryDirectory(prefix="tidy-") as folder:  # short, as a socket's path is
        with serve(
            models, LINNAEUS_PROCESSES="2", LINNAEUS_ENGINE=engine, TMPDIR=folder
        ) as service:
            while not started_members(service):
                pass
            before = list(Path(folder).iterdir())
            service.process.kill()
            said, _ = service.process.communicate(timeout=30)
        after = list(Path(folder).iterdir())

    assert len(before) == 1
    assert after == []
    assert "listening" not in said


def test_a_member_whose_folder_is_gone_says_so_in_one_line(models):
    """Whoever tidies up `/tmp` need not find out by a traceback."""
    with (
        TemporaryDirectory(prefix="gone-") as folder,  # short, as a socket's path is
        serve(models, LINNAEUS_PROCESSES="2", TMPDIR=folder) as service,
    ):
        service.logged("listening", process="member-1")
        (sockets,) = Path(folder).iterdir()
        shutil.rmtree(sockets)
        (member,) = children(service.process)
        os.kill(member, signal.SIGKILL)
        told = service.logged("cannot start", process="member-1")
        statuses = [classify(service) for _ in range(10)]

    assert "restart them" in told["reason"]
    assert statuses == [200] * 10


def test_a_folder_with_packages_of_the_same_names_does_not_matter(models, tmp_path):
    """A member finds what its leader finds, and runs no code of the folder."""
    folder = tmp_path / "elsewhere"
    (folder / "service").mkdir(parents=True)
    (folder / "service" / "__init__.py").touch()
    (folder / "json.py").write_text("raise RuntimeError('not this one')")

    with serve(models, folder=folder, LINNAEUS_PROCESSES="2") as service:
        service.logged("listening", process="member-1")
        found = [classify(service) for _ in range(4)]

    assert found == [200] * 4


def test_members_end_at_once_with_a_leader_that_is_told_so_twice(models):
    """In sessions of their own they do not hear of it, and would hold the port."""
    with serve(models, LINNAEUS_PROCESSES="2", LINNAEUS_DRAIN_NOTICE_S="60") as service:
        service.logged("listening", process="member-1")
        service.process.terminate()
        service.logged("draining")
        service.process.terminate()
        # the pipe of the log ends only when no process holds it any more
        service.process.communicate(timeout=20)

    assert service.process.returncode == 1


@pytest.mark.parametrize("engine", ["own", "shared"])
def test_a_signal_to_leader_and_members_lets_them_finish_what_they_accepted(
    tmp_path, engine
):
    """As systemd sends it by default; the leader's own must not count as a second, and
    an engine that members share is there until they are gone."""
    make_bundle(tmp_path, "slow", misbehaves=True, slow_loops=400_000)
    image = png((SLOW, 0, 0), (200, 200))
    with serve(tmp_path, LINNAEUS_PROCESSES="2", LINNAEUS_ENGINE=engine) as service:
        service.logged("listening", process="member-1")
        with ThreadPoolExecutor(12) as senders:
            sent = [senders.submit(classify, service, image) for _ in range(12)]
            while service.metric("linnaeus_requests_in_flight") < 13:  # and the scrape
                pass
            for pid in (*children(service.process), service.process.pid):
                os.kill(pid, signal.SIGTERM)
            statuses = [each.result() for each in sent]
        code = service.process.wait(timeout=30)

    assert statuses == [200] * 12
    assert code == 0


@pytest.mark.parametrize("engine", ["own", "shared"])
def test_a_leader_that_is_told_to_end_outlives_its_members(tmp_path, engine):
    """It may have their engine, and as the first process of a container it would take
    them along."""
    make_bundle(tmp_path, "slow", misbehaves=True, slow_loops=400_000)
    image = png((SLOW, 0, 0), (200, 200))
    with serve(tmp_path, LINNAEUS_PROCESSES="2", LINNAEUS_ENGINE=engine) as service:
        service.logged("listening", process="member-1")
        if engine == "shared":
            service.logged("handed over")
        (member,) = children(service.process)
        with ThreadPoolExecutor(12) as senders:
            sent = [senders.submit(classify, service, image) for _ in range(12)]
            while service.metric("linnaeus_requests_in_flight") < 13:  # and the scrape
                pass
            service.process.send_signal(signal.SIGTERM)
            code = service.process.wait(timeout=60)
            member_is_gone = not Path(f"/proc/{member}").exists()
            statuses = [each.result() for each in sent]

    assert member_is_gone
    assert statuses == [200] * 12
    assert code == 0


def test_a_second_server_on_the_port_is_an_error(models):
    """Sharing a port is for our own processes, not for an accident."""
    with serve(models, LINNAEUS_PROCESSES="2") as service:
        second = subprocess.run(
            [service.process.args[0], "cli.py", "serve"],
            cwd=Path(__file__).resolve().parents[2],
            env={
                **os.environ,
                "LINNAEUS_MODELS": str(models),
                "LINNAEUS_PORT": str(service.port),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert second.returncode == 1
    assert "cannot listen" in second.stderr


def test_pages_are_added_sample_by_sample():
    """Counters and histograms sum; `ready` is the least."""
    page = (
        "# HELP linnaeus_ready Ready.\n# TYPE linnaeus_ready gauge\n"
        "linnaeus_ready {ready}\n"
        "# HELP linnaeus_images_total Images.\n# TYPE linnaeus_images_total counter\n"
        'linnaeus_images_total{{model="a"}} {images}\n'
    )

    merged = merge(
        [
            page.format(ready=1.0, images=3.0).encode(),
            page.format(ready=0.0, images=4.0).encode(),
        ]
    ).decode()

    assert "linnaeus_ready 0.0" in merged
    assert 'linnaeus_images_total{model="a"} 7.0' in merged


def test_a_log_that_nobody_reads_does_not_keep_the_service_from_serving_or_ending(
    models,
):
    """`linnaeus serve | head -1` must drain like any other."""
    with serve(models, LINNAEUS_PROCESSES="1") as service:
        assert service.process.stdout is not None
        service.process.stdout.close()
        statuses = [classify(service) for _ in range(3)]
        service.process.terminate()
        code = service.process.wait(timeout=30)

    assert statuses == [200] * 3
    assert code == 0
