"""Health, models, metrics and logs tell the truth about the process."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from classifier.bundle import load_bundle
from classifier.errors import BundleError
from classifier.manifest import Task
from service.address import Address, bind
from service.app import create_app
from service.engine.engine import LaneEngine
from service.errors import BundleChangedError, EngineFailedError, SettingsError
from service.leader import Leader
from service.logs import build_log, forwarded
from service.member import Member
from service.problems import PROBLEM_TYPES
from service.server import Server, serve
from service.settings import Settings
from service.shapes import ModelDetail, ModelList
from tests.classifier.test_classifier import two_graphs
from tests.service.conftest import RED, running, send
from tests.service.processes import Service
from tests.service.processes import serve as serve_process
from tests.synthetic import SLOW, make_bundle, png

SLOW_IMAGE = png((SLOW, 0, 0), (200, 200))
ENDLESS = 3_000_000_000  # rounds of the loop of a slow image: about an hour


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/", "/docs", "/models"])
def test_head_works_wherever_get_does(client, path):
    """Balancers like it, and RFC 9110 asks for it."""
    get, head = client.get(path), client.head(path)

    assert (get.status_code, head.status_code) == (200, 200)
    assert head.content == b""
    assert head.headers["Content-Length"] == str(len(get.content))


def test_every_loaded_model_is_listed(client):
    """By name, with the one that answers by default."""
    models = ModelList.model_validate_json(client.get("/models").content).models

    assert [m.name for m in models] == ["colors", "has", "is-red", "poison", "shades"]
    assert [m.name for m in models if m.default] == ["colors"]


def test_a_model_is_described_by_its_manifest(client, bundles):
    """Everything that decides its answers."""
    detail = ModelDetail.model_validate_json(client.get("/models/shades").content)

    manifest = load_bundle(bundles / "shades").manifest
    assert detail.manifest == manifest.model_dump(mode="json")
    assert detail.description == manifest.description
    assert detail.manifest["labels"][0] == {"id": "red", "name": "red", "group": "warm"}
    assert detail.manifest["postprocess"]["abstain_threshold"] == 0.6
    assert (detail.versions, detail.explains, detail.device) == ([1], False, "cpu")


def test_a_model_says_which_of_its_graphs_runs(settings_for, tmp_path):
    """That which the settings chose, and not the first."""
    two_graphs(tmp_path, passed=True)
    settings = settings_for(models=tmp_path, precision="int8")
    with running(settings) as server:
        (model,) = server.client.get("/models").json()["models"]

    assert model["precision"] == "int8"


def test_a_model_lists_no_more_predictions_than_it_answers_with(settings_for, tmp_path):
    """A binary answer has one, though the bundle has two labels and may say 2."""
    make_bundle(tmp_path, "is-red", Task.BINARY, top_k=2)
    with running(settings_for(models=tmp_path, default_model="is-red")) as server:
        listed = server.client.get("/models").json()["models"][0]
        answered = send(server.client, RED, top_k=1)
        refused = send(server.client, RED, top_k=2)

    assert (listed["labels"], listed["top_k"]) == (2, 1)
    assert len(answered.json()["predictions"]) == 1
    assert "for this model 1 to 1" in refused.json()["detail"]


def test_a_version_can_be_asked_for(settings_for, tmp_path):
    """Two versions side by side; the newest answers unless one is named."""
    make_bundle(tmp_path, "dog", version=1)
    make_bundle(tmp_path, "dog", version=12)
    settings = settings_for(models=tmp_path, load=("dog", "dog/1"), default_model=None)
    with running(settings) as server:
        newest = send(server.client, RED).json()["model"]
        older = send(server.client, RED, version=1).json()["model"]

    assert (newest["version"], older["version"]) == (12, 1)


def test_without_a_default_a_request_must_name_its_model(settings_for):
    """Guessing among several would answer some requests with the wrong model."""
    with running(settings_for(default_model=None)) as server:
        response = send(server.client, RED)

    assert response.status_code == 422
    assert "loaded are colors, has" in response.json()["detail"]


def test_a_default_that_is_not_loaded_refuses_to_start(settings_for):
    """Naming the variable, its value and what there is."""
    settings = settings_for(default_model="cat")

    with pytest.raises(SettingsError, match=r"LINNAEUS_DEFAULT_MODEL is 'cat'; loaded"):
        serve(settings, LaneEngine(settings))


def test_a_folder_without_bundles_refuses_to_start(settings_for, tmp_path):
    """With the library's own words, not a stack of calls."""
    settings = settings_for(models=tmp_path)

    with pytest.raises(BundleError, match="holds no bundle"):
        serve(settings, LaneEngine(settings))


def test_a_process_whose_runs_hang_for_good_ends_with_status_1(tmp_path):
    """So that Docker, Kubernetes, systemd or its leader start it again."""
    make_bundle(tmp_path, "odd", misbehaves=True, slow_loops=ENDLESS)
    with serve_process(
        tmp_path,
        LINNAEUS_PROCESSES="1",
        LINNAEUS_LANES="2",
        LINNAEUS_BATCH="1",
        LINNAEUS_HANG_TIMEOUT_S="0.3",
    ) as service:
        url = f"{service.url}/classify"
        with ThreadPoolExecutor(4) as senders:  # both lanes, and those in their places
            sent = [senders.submit(httpx.post, url, content=SLOW_IMAGE) for _ in "four"]
        answers = [each.result().status_code for each in sent]
        code = service.process.wait(timeout=60)

    assert answers == [500] * 4
    assert code == 1


@contextmanager
def endless_run(models, **settings) -> Iterator[tuple[Service, Future]]:
    """A service with a run at work that never ends, and the request that began it."""
    make_bundle(models, "odd", misbehaves=True, slow_loops=ENDLESS)
    with (
        serve_process(models, LINNAEUS_PROCESSES="1", **settings) as service,
        ThreadPoolExecutor(1) as sender,
    ):
        url = f"{service.url}/classify"
        sent = sender.submit(httpx.post, url, content=SLOW_IMAGE, timeout=60)
        while not service.metric("linnaeus_buffered_bytes"):
            time.sleep(0.05)
        yield service, sent


def test_a_run_that_hangs_does_not_hold_up_the_end(tmp_path):
    """Its client has had an answer; what is left behind shows in the status."""
    with endless_run(
        tmp_path,
        LINNAEUS_DRAIN_NOTICE_S="0",
        LINNAEUS_DRAIN_TIMEOUT_S="0.5",
        LINNAEUS_HANG_TIMEOUT_S="86400",
        LINNAEUS_REQUEST_TIMEOUT_MS="600000",  # or its own end would be the drain's
    ) as (service, sent):
        service.process.send_signal(signal.SIGTERM)
        code = service.process.wait(timeout=60)  # and not a day
        sent.exception()

    assert code == 1


def test_a_second_signal_does_not_wait_for_the_run_at_work(tmp_path):
    """Nor does the interpreter end beneath it, which would be an abort."""
    with endless_run(tmp_path) as (service, sent):
        service.process.send_signal(signal.SIGTERM)
        service.logged("draining")
        service.process.send_signal(signal.SIGTERM)
        code = service.process.wait(timeout=20)
        lost = sent.exception()

    assert isinstance(lost, httpx.TransportError)
    assert code == 1


@pytest.mark.parametrize("hang_up", ["SIG_IGN"])
def test_under_nohup_a_terminal_that_closes_is_nothing(process):
    """Whoever starts a service so wants it to stay."""
    process, url = process

    process.send_signal(signal.SIGHUP)
    ready = httpx.get(f"{url}/readyz", timeout=60)

    assert ready.status_code == 200
    assert process.poll() is None


def test_what_the_end_cuts_off_is_no_fault():
    """A request that the drain had no time for has its own line in the log."""
    log, uvicorn = StringIO(), logging.getLogger("uvicorn.error")
    with forwarded(build_log(Settings(), log)):
        uvicorn.error("cut off", exc_info=asyncio.CancelledError())
        uvicorn.error("broken", exc_info=ValueError("it is"))

    (line,) = log.getvalue().splitlines()
    assert json.loads(line)["event"] == "broken"


class Stopped:
    """A service that gets a signal at each of some moments of its life."""

    def __init__(self, settings, *moments: str, of: type = Leader) -> None:
        self.name, self.stops_at_second_signal = "any", of.stops_at_second_signal
        self.moments, self.log, self.passed = moments, StringIO(), []
        logger = build_log(settings, self.log)
        self.engine = LaneEngine(settings, log=logger)
        app = create_app(settings, self.engine, log=logger)
        self.server = Server(app, logger, place=self)
        start = self.engine.start

        async def start_and_pass() -> None:
            await start()
            self.passes("loaded")

        self.engine.start = start_and_pass
        with forwarded(logger), bind("127.0.0.1", 0) as listener:
            self.server.run(sockets=[listener])

    def check(self, loaded: object) -> None:
        """Serve whatever there is, unless that shall be refused."""
        if "refused" in self.moments:
            raise BundleChangedError("it has changed")

    def passes(self, moment: str) -> None:
        """Note it; here a signal may come."""
        self.passed.append(moment)
        if moment in self.moments:
            self.server.handle_exit(signal.SIGTERM, None)

    async def taken(self, *_) -> None:
        """As a place has it, which takes some turns of the loop."""
        self.passes("open")
        if "broken" in self.moments:
            self.engine._broken.set()
        for _ in range(5):
            await asyncio.sleep(0)
        self.passes("taken")

    async def left(self) -> None:
        """As a place has it."""
        self.passes("draining")

    def cut_off(self) -> None:
        """As a place has it."""
        self.passes("cut off")

    async def ended(self) -> None:
        """As a place has it."""
        self.passes("ended")

    @property
    def faults(self) -> list[str]:
        """What its log has beside news."""
        lines = self.log.getvalue().splitlines()
        return [line for line in lines if json.loads(line)["level"] != "info"]


def test_a_service_that_is_stopped_while_it_loads_never_opens(settings_for):
    """And ends as cleanly as any other."""
    service = Stopped(settings_for(), "loaded")

    assert service.passed == ["loaded"]
    assert service.faults == []
    assert service.engine.unready() == "the engine is closed"


def test_a_service_that_may_not_serve_what_it_has_loaded_leaves_nothing_running(
    tmp_path,
):
    """Its lanes would hold what they have loaded until the process ends."""
    make_bundle(tmp_path, "colors")
    service = Stopped(Settings(models=tmp_path), "refused")

    assert isinstance(service.server.failure, BundleChangedError)
    assert service.engine.unready() == "the engine is closed"


def test_a_service_that_is_stopped_while_it_opens_drains_like_any_other(settings_for):
    """What its start has begun is ended, and nothing is cut off in the middle."""
    service = Stopped(settings_for(), "open")

    assert service.passed == ["loaded", "open", "taken", "draining", "ended"]
    assert service.faults == []
    assert service.engine.unready() == "the engine is closed"


def test_a_second_signal_ends_a_service_at_once_and_without_a_fault(settings_for):
    """There is no time to close the engine, and that is no error."""
    service = Stopped(settings_for(), "open", "draining")

    assert service.passed == ["loaded", "open", "taken", "draining", "cut off", "ended"]
    assert service.faults == []
    assert service.engine.unready() is None


def test_the_first_signal_to_a_service_that_drains_by_itself_is_no_second(settings_for):
    """It is broken, and whatever can still be answered is."""
    service = Stopped(settings_for(), "broken", "draining")

    assert service.passed == ["loaded", "open", "taken", "draining", "ended"]
    assert isinstance(service.server.failure, EngineFailedError)


def test_a_second_signal_to_a_member_cuts_nothing_off(settings_for):
    """Whoever signals all processes tells it twice: by himself, and by the leader."""
    service = Stopped(settings_for(), "open", "draining", of=Member)

    assert service.passed == ["loaded", "open", "taken", "draining", "ended"]
    assert service.faults == []
    assert service.engine.unready() == "the engine is closed"


def test_a_port_in_use_refuses_to_start(settings_for, server):
    """Naming the address."""
    settings = settings_for(port=server.port)

    with pytest.raises(SettingsError, match=rf"127.0.0.1:{server.port}.*in use"):
        bind(settings.host, settings.port)


def test_a_port_that_is_taken_while_the_models_load_refuses_to_start(settings_for):
    """Two sockets may be bound to it, and only one may listen."""
    with bind("127.0.0.1", 0) as other:
        settings = settings_for(port=other.getsockname()[1])
        engine = LaneEngine(settings)
        load = engine.start

        async def load_and_lose() -> None:
            await load()
            other.listen()

        engine.start = load_and_lose
        with pytest.raises(SettingsError, match=rf"127.0.0.1:{settings.port}.*in use"):
            serve(settings, engine)

    assert engine.unready() == "the engine is closed"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_on_which_a_server_of_several_processes_loads_refuses_another(
    settings_for, host
):
    """Both might share it, and each would answer half of the requests."""
    with (
        bind(host, 0, shared=True) as first,
        Address.of(first).claimed(),
    ):
        settings = settings_for(host=host, port=first.getsockname()[1], processes=2)

        with pytest.raises(SettingsError, match=rf"{host}:{settings.port}.*in use"):
            serve(settings, LaneEngine(settings))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_that_is_logged_can_be_asked(settings_for, host):
    """That of IPv6 has colons of its own, and stands in brackets."""
    with running(settings_for(host=host)) as server:
        lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
        [url] = [line["url"] for line in lines if line["event"] == "listening"]

        assert httpx.get(f"{url}/livez").status_code == 200


def test_a_port_that_was_free_is_told_at_any_level(settings_for, capsys):
    """Nobody could find the service otherwise."""
    with running(settings_for(log_level="error", log_format="json")) as server:
        (line,) = map(json.loads, capsys.readouterr().out.splitlines())

    assert (line["event"], line["url"]) == ("listening", server.url)


def metrics_of(client):
    """Name and labels of every sample → value."""
    page = client.get("/metrics").text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_what_happens_is_counted(settings_for):
    """By route, status and code, and for each model."""
    with running(settings_for()) as server:
        send(server.client, RED)
        send(server.client, b"garbage")
        server.client.get("/no/such/path/1")
        counted = metrics_of(server.client)

    assert counted["linnaeus_requests_total", "/classify", "200", "ok"] == 1
    assert (
        counted[
            "linnaeus_requests_total", "/classify", "415", "image_format_unsupported"
        ]
        == 1
    )
    assert counted["linnaeus_requests_total", "404", "other", "route_not_found"] == 1
    assert counted["linnaeus_images_total", "1", "colors", "ok"] == 1
    assert counted["linnaeus_infer_seconds_count", "1", "colors"] == 1
    assert counted["linnaeus_batch_size_sum", "1", "colors"] == 1
    assert counted["linnaeus_ready",] == 1
    assert counted["linnaeus_queued_images", "1", "colors"] == 0


def test_the_images_of_a_batch_that_is_refused_whole_are_counted(settings_for):
    """As those of single requests are, by the code that all of them met."""
    settings = settings_for(request_timeout_ms=50, lanes=1, batch=1)
    files = [("files", SLOW_IMAGE)] * 2
    with running(settings) as server:
        late = server.client.post("/classify/batch?model=poison", files=files)
        counted = metrics_of(server.client)

    assert late.status_code == 504
    assert counted["linnaeus_images_total", "1", "deadline_exceeded", "poison"] == 2


def test_what_may_be_alerted_of_is_counted_from_0(settings_for):
    """To Prometheus a counter that is born at 5 has not risen."""
    with running(settings_for()) as server:
        counted = metrics_of(server.client)
        paths = server.client.get("/openapi.json").json()["paths"]

    taking = [
        path
        for path in paths
        if "504" in paths[path].get("post", {}).get("responses", ())
    ]
    ours = {c: str(int(k.status)) for c, k in PROBLEM_TYPES.items() if k.status >= 500}
    assert len(taking) == 4
    for code, status in {"ok": "200", **ours}.items():
        assert counted["linnaeus_images_total", *sorted(("1", "colors", code))] == 0
        for path in taking:
            labels = sorted((path, status, code))
            assert counted["linnaeus_requests_total", *labels] == 0


def test_the_page_of_metrics_says_what_it_is_written_in(client):
    """Prometheus asks for it, and generated clients do not take it for JSON."""
    paths = client.get("/openapi.json").json()["paths"]
    page = client.get("/metrics")

    assert page.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert set(paths["/metrics"]["get"]["responses"]["200"]["content"]) == {
        "text/plain"
    }


def test_every_metric_is_documented(client, repository):
    """And no other."""
    page = client.get("/metrics").text
    exported = set(re.findall(r"^# TYPE (\w+) ", page, re.M))
    documented = set(
        re.findall(
            r"^\| `((?:linnaeus|process)_\w+)` \|",
            (repository / "docs/http.md").read_text(),
            re.M,
        )
    )

    assert exported == documented


def test_a_request_is_one_line_of_json(settings_for):
    """With its id, and without the query, which may hold what a client mistyped."""
    with running(settings_for()) as server:
        response = send(server.client, RED, top_k=1)

    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    (line,) = [entry for entry in lines if entry["event"] == "request"]
    assert line["request_id"] == response.headers["X-Request-ID"]
    assert (line["path"], line["status"], line["code"]) == ("/classify", 200, "ok")
    assert (line["model"], line["batch_size"]) == ("colors", 1)


def test_the_status_of_a_refusal_is_a_number_on_a_terminal_too(settings_for):
    """JSON writes a name of a status as its number, and a terminal would not."""
    with running(settings_for(log_format="console")) as server:
        server.client.get("/no/such/path")
        send(server.client, b"garbage")  # on the fast path

    logged = server.log.getvalue()
    assert re.findall(r"\bstatus=(.*?)(?= |$)", logged, re.MULTILINE) == ["404", "415"]


# on the fast path, or through ASGI
@pytest.mark.parametrize("header", [b"", b"Content-Encoding: identity\r\n"])
def test_an_image_that_arrives_when_there_is_no_lane_any_more_is_told_so(
    settings_for, header
):
    """Its head was accepted; a client or a balancer may try again elsewhere."""
    head = b"POST /classify HTTP/1.1\r\nHost: any\r\nConnection: close\r\n" + header
    with running(settings_for()) as server:
        serving = server.app.serving
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
            peer.sendall(head + b"Content-Length: %d\r\n\r\n" % len(RED))
            while not serving.metrics.in_flight:
                pass
            serving.engine._lanes.trouble = "no lane is alive"
            peer.sendall(RED)
            received = peer.makefile("rb").read()

    assert received.startswith(b"HTTP/1.1 503")
    assert b'"not_ready"' in received


@pytest.fixture
def hang_up() -> str:
    """What the service finds set for SIGHUP, whatever the tests run under."""
    return "SIG_DFL"


@pytest.fixture
def process(bundles, hang_up):
    """The service as a process of its own, and the URL that it logs."""
    code = (
        f"import signal; signal.signal(signal.SIGHUP, signal.{hang_up});"
        "from service.settings import load_settings; from service.server import serve;"
        "from service.engine.engine import LaneEngine; settings = load_settings();"
        "serve(settings, LaneEngine(settings))"
    )
    environment = {
        **os.environ,
        "LINNAEUS_MODELS": str(bundles),
        "LINNAEUS_PORT": "0",
        "LINNAEUS_PROCESSES": "1",
        "LINNAEUS_LOG_FORMAT": "json",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    events = (json.loads(line) for line in process.stdout)
    yield process, next(e["url"] for e in events if e["event"] == "listening")
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGHUP,) * 2])
def test_a_stopping_process_finishes_what_it_accepted(process, signals):
    """SIGTERM, or its terminal was closed, which may be said twice: the slow request is
    answered, a late one refused, the end clean."""
    process, url = process
    answers = []

    def slow() -> None:
        answers.append(
            httpx.post(f"{url}/classify?model=poison", content=SLOW_IMAGE, timeout=60)
        )

    with httpx.Client(base_url=url, timeout=60) as late:
        late.get("/readyz").raise_for_status()  # connected before the port closes
        send(late, RED, model="colors").raise_for_status()  # has been idle before
        thread = threading.Thread(target=slow)
        thread.start()
        while not metrics_of(late)["linnaeus_requests_in_flight",] > 1:
            pass
        for each in signals:
            process.send_signal(each)
            time.sleep(0.02)  # of two at once the kernel delivers one
        ready = late.get("/readyz")
        while ready.status_code == 200:
            ready = late.get("/readyz")
        refused = late.post("/classify", params={"model": "colors"}, content=RED)
    thread.join()

    assert (ready.status_code, ready.json()["code"]) == (503, "draining")
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert answers[0].status_code == 200
    assert process.wait(timeout=30) == 0


PROBES = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")


@pytest.mark.parametrize(("level", "told"), [("info", []), ("debug", list(PROBES))])
def test_probes_that_are_content_have_no_line_among_those_of_requests(
    settings_for, level, told
):
    """They are asked every second or two, and would hide all others."""
    with running(settings_for(log_level=level)) as server:
        for path in PROBES:
            server.client.get(path).raise_for_status()
        server.client.get("/models")

    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["path"] for line in requests] == [*told, "/models"]
    assert {line["level"] for line in requests[:-1]} <= {"debug"}


def test_a_probe_that_says_no_has_a_line_that_is_no_error(settings_for):
    """A drain is no fault; what has broken has lines of its own."""
    with running(settings_for()) as server:
        server.app.serving.draining = True
        statuses = [server.client.get(path).status_code for path in PROBES]
        server.app.serving.draining = False

    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert statuses == [200, 503, 200, 200, 503]
    assert [(line["path"], line["level"]) for line in requests] == [
        ("/readyz", "info"),
        ("/v2/health/ready", "info"),
    ]


def test_a_probe_that_fails_has_a_line_like_any_other_fault(settings_for, monkeypatch):
    """Also where only warnings are logged: nobody would find the request of it."""

    def fail(_: object) -> bytes:
        raise RuntimeError("no page")

    with running(settings_for(log_level="warning")) as server:
        monkeypatch.setattr(type(server.app.serving.metrics), "page", fail)
        status = server.client.get("/metrics").status_code

    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    told = [(line["event"], line["level"]) for line in lines]
    assert status == 500
    assert told == [("fault", "error"), ("request", "error")]
