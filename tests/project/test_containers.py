"""What the container files promise, as far as it can be read without an engine.

`make image-test` builds the image and tries it.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from classifier.bundle import list_bundles, load_bundle
from classifier.decode import MAX_BYTES_A_PIXEL
from service.settings import Settings
from service.shared.slots import slot_bytes

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
MODELS_AND_PYTHON = 256 * 2**20
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def instructions(name: str) -> list[str]:
    """The arguments of every such instruction."""
    return re.findall(rf"^{name}\s+(.*)$", DOCKERFILE, flags=re.MULTILINE)


def test_the_image_serves_as_a_numbered_user_without_rights():
    """Kubernetes' runAsNonRoot can only check a number."""
    [user] = instructions("USER")

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_the_server_itself_gets_the_signal():
    """A shell in front of it would take SIGTERM and not pass it on."""
    assert json.loads(instructions("CMD")[-1]) == ["linnaeus", "serve"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert instructions("ENTRYPOINT") == []


@pytest.mark.parametrize(
    "service", COMPOSE["services"].values(), ids=COMPOSE["services"]
)
def test_compose_puts_a_first_process_before_the_server(service):
    """The first process misses a signal that comes while its interpreter starts."""
    assert service["init"] is True


def test_the_image_sends_no_telemetry_even_before_our_code_runs():
    """Someone may open a Python in the container and import onnxruntime."""
    assert any("ORT_DISABLE_TELEMETRY=1" in line for line in instructions("ENV"))


def test_the_health_check_asks_for_readiness():
    """Alive is not enough: a balancer sends requests to what is healthy."""
    [check] = instructions("HEALTHCHECK")

    assert "/readyz" in check
    assert check.count('"') >= 6  # exec form: the image may have no shell one day


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_carries_its_license_and_what_comes_from_others(target):
    """Whoever passes an image on must pass both on (Apache-2.0, section 4)."""
    parts = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    stages = {part.split("\n")[0].split(" AS ")[-1]: part for part in parts}

    assert re.search(r"^COPY .*\bLICENSE NOTICE \./$", stages["source"], re.MULTILINE)
    assert "COPY --from=source /app /app" in stages[target]
    assert "LABEL org.opencontainers.image.licenses=Apache-2.0" in stages["base"]


def memory_needed(cores: int, *, shared: bool = False) -> int:
    """Bytes at worst, with default settings; `shared`: a process a core, one engine."""
    default = {name: field.default for name, field in Settings.model_fields.items()}
    images = cores * default["max_pixels"] * MAX_BYTES_A_PIXEL
    each = default["max_buffered_bytes"] + MODELS_AND_PYTHON
    if not shared:
        return images + each
    models = ROOT / "models"
    manifests = [load_bundle(models / name).manifest for name in list_bundles(models)]
    slots = 2 * len(manifests) * default["queue_capacity"] * slot_bytes(manifests)
    return images + cores * each + (cores - 1) * slots


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_each_target_has_its_profile_and_its_extra(target):
    """`docker compose --profile gpu up` builds the target gpu with the extra gpu."""
    service = COMPOSE["services"][target]

    assert service["profiles"] == [target]
    assert service["build"]["target"] == target
    assert f"AS {target}\n" in DOCKERFILE
    assert f"-e '.[{target}]'" in DOCKERFILE


@pytest.mark.parametrize(
    "service", COMPOSE["services"].values(), ids=COMPOSE["services"]
)
def test_compose_gives_the_service_no_more_than_it_needs(service):
    """Read-only everywhere, no capability, bounded memory and processes."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] == service["memswap_limit"]
    assert service["pids_limit"] > 0
    assert [v for v in service["volumes"] if not v.endswith(":ro")] == []


@pytest.mark.parametrize(
    "service", COMPOSE["services"].values(), ids=COMPOSE["services"]
)
def test_compose_publishes_the_service_on_this_machine_alone(service):
    """It asks nobody who they are, so other machines are let in on purpose only."""
    [port] = service["ports"]
    published = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port)

    assert published == "127.0.0.1:8000:8000"


@pytest.mark.parametrize(
    "service", COMPOSE["services"].values(), ids=COMPOSE["services"]
)
def test_what_compose_reads_from_its_file_stops_no_service(service):
    """`.env` goes into the container too, where an unknown setting is an error."""
    read = set(re.findall(r"\$\{(LINNAEUS_\w+)", str(service)))

    assert read <= {f"LINNAEUS_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(
    "service", COMPOSE["services"].values(), ids=COMPOSE["services"]
)
def test_the_worst_images_fit_into_the_memory_of_compose(service):
    """One in each lane, beside all bodies, the models and Python."""
    given = int(service["mem_limit"].removesuffix("g")) * 2**30

    assert given > memory_needed(service["cpus"], shared=service["profiles"] == ["gpu"])


def test_the_grace_period_is_longer_than_the_longest_drain():
    """Otherwise accepted requests are killed half-way."""
    grace_s = int(COMPOSE["services"]["cpu"]["stop_grace_period"].removesuffix("s"))
    defaults = {n: f.default for n, f in Settings.model_fields.items()}

    assert grace_s > defaults["drain_timeout_s"] + defaults["drain_notice_s"]


def test_only_what_the_dockerfile_copies_reaches_the_builder():
    """Data, environments and notes must not slip into an image."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for line in instructions("COPY")
        if "--from" not in line
        for source in line.split()[:-1]
    }

    assert "*" in ignored
    assert copied == let_in


@pytest.fixture
def engines(tmp_path, monkeypatch):
    """Docker and Podman side by side: small programs that note what they are told.

    buildah fails, so that nothing goes on from an image that was not built.
    """
    called = tmp_path / "called"
    for name, status in {"docker": 0, "podman": 0, "buildah": 3}.items():
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$1" >> {called}\nexit {status}\n')
        program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("ENGINE", raising=False)
    return called


def test_the_image_that_is_tried_is_the_one_that_was_built(engines, monkeypatch):
    """Podman does not see what Docker has built, and would try an older image."""
    monkeypatch.setenv("PHOTO", __file__)
    tried = subprocess.run([ROOT / "deploy/image-test.sh"], check=False)

    assert tried.returncode == 3
    calls = engines.read_text().splitlines()
    assert "buildah bud" in calls
    assert [call for call in calls if call.startswith("docker")] == []


def test_an_image_is_not_built_to_be_tried_without_a_photo(
    engines, monkeypatch, tmp_path
):
    """Who has no data sets hears at once what to name in place of theirs."""
    monkeypatch.delenv("PHOTO", raising=False)
    monkeypatch.setenv("LINNAEUS_DATA", str(tmp_path))
    tried = subprocess.run(
        [ROOT / "deploy/image-test.sh"], check=False, capture_output=True, text=True
    )

    assert tried.returncode == 1
    assert not engines.exists()
    for said in (str(tmp_path), "LINNAEUS_DATA", "PHOTO=", "LABEL="):
        assert said in tried.stderr


def test_the_image_is_tried_with_as_many_lanes_as_its_memory_is_for():
    """Where each of eight cores has a lane, the start alone takes more than 1 GiB."""
    script = (ROOT / "deploy/image-test.sh").read_text()
    run = script[script.index("podman run ") :].partition(">/dev/null")[0]

    assert "--memory 1g" in run
    assert "LINNAEUS_LANES=2" in run


def test_an_image_is_built_with_docker_where_it_works(engines):
    """Nobody asked for Podman, and Compose takes what Docker has built."""
    subprocess.run([ROOT / "deploy/build-image.sh", "cpu"], check=True)

    assert engines.read_text().splitlines() == ["docker info", "docker build"]
