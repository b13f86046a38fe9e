"""Files for other people's machines, held to what the service really has."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.engine.engine import LaneEngine
from service.settings import Settings
from tests.project.test_containers import memory_needed
from tests.service.conftest import running
from tests.synthetic import POISON, SLOW, make_bundle, png

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"\b(?:linnaeus|process)_[a-z_]+")
ROUTES = re.compile(r'\broute(=~?)\\?"([^"\\]+)')


def pod_of(name: str) -> dict:
    """The pod of the first document of a file in deploy/kubernetes."""
    text = (DEPLOY / "kubernetes" / name).read_text()
    return next(yaml.safe_load_all(text))["spec"]["template"]["spec"]


def documented_metrics() -> set[str]:
    """What docs/http.md lists, with the series that a histogram has."""
    names = set(
        re.findall(
            r"^\| `((?:linnaeus|process)_\w+)` \|",
            (ROOT / "docs/http.md").read_text(),
            re.M,
        )
    )
    return names | {f"{n}_{part}" for n in names for part in ("bucket", "sum", "count")}


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_every_metric_that_is_watched_exists(name):
    """A dashboard of a metric that was renamed shows a calm, empty panel."""
    used = set(METRIC.findall((DEPLOY / "monitoring" / name).read_text()))

    assert used
    assert used - documented_metrics() == set()


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_whoever_watches_routes_watches_all_that_take_images(name):
    """A service that is asked for batches only would be slow and full unnoticed."""
    documented = create_app(Settings(), LaneEngine(Settings())).openapi()["paths"]
    taking = [
        route
        for route, methods in documented.items()
        if "504" in methods.get("post", {}).get("responses", ())  # a deadline
    ]
    watched = ROUTES.findall((DEPLOY / "monitoring" / name).read_text())

    assert "/v2/models/{name}/infer" in taking
    assert watched
    for operator, value in watched:
        pattern = value if operator == "=~" else re.escape(value)
        assert [route for route in taking if not re.fullmatch(pattern, route)] == []


def rule(name: str) -> dict:
    """An alert."""
    alerts = yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())
    [found] = [r for r in alerts["groups"][0]["rules"] if r["alert"] == name]
    return found


def expressions() -> dict[str, list[str]]:
    """What each panel of the dashboard asks, by its title."""
    board = json.loads((DEPLOY / "monitoring/grafana.json").read_text())
    return {p["title"]: [t["expr"] for t in p["targets"]] for p in board["panels"]}


def counted(expression: str, page: str) -> dict[str, float]:
    """Each counter of labels that an expression names → their sum on a page."""
    families = list(text_string_to_metric_families(page))
    return {
        f"{name}{{{wanted}}}": sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and matches(sample.labels, wanted)
        )
        for name, wanted in re.findall(r"(\w+_total)\{([^}]+)\}", expression)
    }


def matches(labels: dict[str, str], wanted: str) -> bool:
    """Whether labels are as a selector says; the job is what Prometheus adds."""
    for name, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', wanted):
        found = re.fullmatch(
            value if operator == "=~" else re.escape(value), labels.get(name, "")
        )
        if name != "job" and bool(found) == (operator == "!="):
            return False
    return True


def test_images_that_fail_inside_a_batch_are_alerted_of_and_shown(tmp_path):
    """Their request has the status 200, and would hide every fault of the engine."""
    make_bundle(tmp_path, "odd", misbehaves=True)
    settings = Settings(models=tmp_path, port=0, processes=1)
    with running(settings) as server:
        files = [("files", png((POISON, 0, 0)))] * 2
        answer = server.client.post("/classify/batch", files=files)
        page = server.client.get("/metrics").text

    assert (answer.status_code, answer.json()["failed"]) == (200, 2)
    assert 2 in counted(rule("LinnaeusFails")["expr"], page).values()
    [shown] = expressions()["Images without an answer"]
    assert list(counted(shown, page).values()) == [2]


def test_images_that_are_late_inside_a_batch_are_alerted_of(tmp_path):
    """Their request has the status 200 for the sake of those that came in time."""
    make_bundle(tmp_path, "odd", misbehaves=True, slow_loops=400_000)
    settings = Settings(
        models=tmp_path, port=0, processes=1, lanes=1, batch=1, request_timeout_ms=500
    )
    files = [("files", png((9, 9, 9)))] + [("files", png((SLOW, 0, 0)))] * 6
    with running(settings) as server:
        answer = server.client.post("/classify/batch", files=files)
        page = server.client.get("/metrics").text

    assert answer.status_code == 200
    late = answer.json()["failed"]
    assert late > 0
    assert late in counted(rule("LinnaeusOverloaded")["expr"], page).values()


def test_an_alert_of_readiness_names_the_instance_and_is_not_of_all_together():
    """In a rolling update one after the other is not ready, which is no fault."""
    ready = rule("LinnaeusNotReady")

    assert " by (" not in ready["expr"]
    assert "$labels.instance" in ready["annotations"]["summary"]


def test_alerts_are_looked_at_more_often_than_the_shortest_waits():
    """By default once a minute, so that a minute would become two."""
    alerts = yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())
    scraped = yaml.safe_load((DEPLOY / "monitoring/prometheus.yml").read_text())
    rules = alerts["groups"][0]["rules"]
    waits = [int(r["for"].removesuffix("m")) for r in rules if "for" in r]

    every_s = int(scraped["global"]["evaluation_interval"].removesuffix("s"))
    assert every_s <= min(waits) * 60 / 4


def test_a_dashboard_counts_no_strangers():
    """Where pods are found by annotations, every program has the same job."""
    common = [
        expression
        for asked in expressions().values()
        for expression in asked
        if re.search(r"\b(up|process_\w+)\{", expression)
    ]

    assert len(common) == 2
    assert [e for e in common if "on (job, instance)" not in e] == []
    assert [e for e in common if "linnaeus_ready" not in e] == []


def test_both_deployments_are_what_kustomize_makes_of_their_files():
    """The one for GPUs is the other with a patch, and names what it patches."""
    folder = DEPLOY / "kubernetes"
    cpu, gpu = (
        yaml.safe_load((folder / each / "kustomization.yaml").read_text())
        for each in ("cpu", "gpu")
    )
    first = next(yaml.safe_load_all((folder / "cpu" / cpu["resources"][0]).read_text()))
    [patch] = [
        yaml.safe_load((folder / "gpu" / each["path"]).read_text())
        for each in gpu["patches"]
    ]

    assert (folder / "gpu" / gpu["resources"][0]).resolve() == folder / "cpu"
    assert [patch[key] for key in ("apiVersion", "kind", "metadata")] == [
        first["apiVersion"],
        first["kind"],
        {"name": first["metadata"]["name"]},
    ]
    kubectl = shutil.which("kubectl")
    if kubectl is not None:
        made = subprocess.run(
            [kubectl, "kustomize", folder / "gpu"], check=True, capture_output=True
        )
        [pod] = [
            each["spec"]["template"]["spec"]["containers"][0]
            for each in yaml.safe_load_all(made.stdout)
            if each["kind"] == "Deployment"
        ]
        assert pod["image"] == "linnaeus:gpu"
        assert {"name": "LINNAEUS_DRAIN_NOTICE_S", "value": "5"} in pod["env"]


def test_a_new_release_is_pushed_under_a_name_of_its_own():
    """Under an old one nodes go on with what they have, and nothing leads back."""
    text = (DEPLOY / "README.md").read_text()

    assert "TAG=cpu-$(git describe --always --dirty)" in text
    assert text.count("REGISTRY/linnaeus:$TAG") == text.count("REGISTRY/linnaeus:") == 3


def test_one_process_that_serves_is_as_many_as_are_wanted(tmp_path):
    """What `LinnaeusShort` compares is there, and says that all is well."""
    make_bundle(tmp_path, "colors")
    settings = Settings(models=tmp_path, port=0, processes=1)
    with running(settings) as server:
        page = server.client.get("/metrics").text

    assert "\nlinnaeus_processes 1.0\n" in page
    assert "\nlinnaeus_processes_wanted 1.0\n" in page
    assert rule("LinnaeusShort")["expr"] == (
        "linnaeus_processes < linnaeus_processes_wanted"
    )


def test_a_process_that_is_gone_is_alerted_of():
    """It has no `linnaeus_ready` that could be 0; only Prometheus knows of it."""
    ready = rule("LinnaeusNotReady")["expr"]
    scraped = yaml.safe_load((DEPLOY / "monitoring/prometheus.yml").read_text())
    [job] = [each["job_name"] for each in scraped["scrape_configs"]]
    [jobs] = re.findall(r'\bup\{job=~"([^"]+)"\} == 0', ready)

    assert re.fullmatch(jobs, job)
    # a pod that is found by its annotations, whatever its job is called
    assert "up == 0 and on (job, instance) max_over_time(linnaeus_ready[1d])" in ready


@pytest.mark.parametrize(
    "name",
    [
        "deploy/kubernetes/cpu/linnaeus.yaml",
        "deploy/kubernetes/gpu/gpu.yaml",
        "deploy/systemd/linnaeus.service",
        "Dockerfile",
    ],
)
def test_every_setting_that_is_given_exists(name):
    """An unknown setting stops the service, in production, at its start."""
    text = re.sub(r"^\s*#.*", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    given = set(re.findall(r"LINNAEUS_[A-Z_]+", text))

    assert given
    assert given <= {f"LINNAEUS_{field.upper()}" for field in Settings.model_fields}


def test_kubernetes_waits_longer_than_the_service_drains():
    """Otherwise accepted requests are killed half-way."""
    pod = pod_of("cpu/linnaeus.yaml")
    environment = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
    timeout_s = Settings.model_fields["drain_timeout_s"].default

    drain_s = float(environment["LINNAEUS_DRAIN_NOTICE_S"]) + timeout_s
    assert pod["terminationGracePeriodSeconds"] > drain_s


def test_systemd_tells_the_leader_and_waits_longer_than_the_service_drains():
    """Its default tells every process, and members know from their leader."""
    text = (DEPLOY / "systemd/linnaeus.service").read_text()
    [stop_s] = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)

    assert "\nKillMode=mixed\n" in text
    assert int(stop_s) > Settings.model_fields["drain_timeout_s"].default


def test_what_the_unit_needs_is_installed_by_a_command_that_ends():
    """`make serve` installs as well, and then serves until somebody stops it."""
    text = (DEPLOY / "systemd/linnaeus.service").read_text()
    [target] = re.findall(r"`make (\w+)`", text)

    planned = subprocess.run(
        ["make", "--dry-run", "--always-make", target],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert "pip install" in planned
    assert "linnaeus serve" not in planned


def test_browsers_are_not_invited_to_send_what_the_proxy_overwrites():
    """A header that is allowed and then replaced is a promise that is not kept."""
    text = (DEPLOY / "README.md").read_text()
    [invited] = re.findall(r'Access-Control-Allow-Headers "?([\w, -]+)"?;', text)
    replaced = set(re.findall(r"proxy_set_header (\S+)", text))

    assert replaced
    assert replaced & set(invited.split(", ")) == set()


def test_a_proxy_does_not_take_a_full_instance_for_a_broken_one():
    """Who asks another one after a 503 would ask neither for ten seconds."""
    text = (DEPLOY / "README.md").read_text()
    [retried] = re.findall(r"proxy_next_upstream ([\w ]+);", text)
    upstreams = re.findall(r"^upstream \w+ \{(.*?)^\}", text, re.M | re.S)
    servers = [re.findall(r"server (.*);", upstream) for upstream in upstreams]
    several = [each for group in servers if len(group) > 1 for each in group]

    assert {"http_503", "non_idempotent"} <= set(retried.split())
    assert several
    assert [each for each in several if "max_fails=0" not in each] == []


def test_whoever_hides_home_folders_says_where_python_may_be():
    """That of pyenv or uv is below one, and the unit would end with 203/EXEC."""
    unit = (DEPLOY / "systemd/linnaeus.service").read_text()

    assert "\nProtectHome=yes\n" in unit
    for text in (unit, (DEPLOY / "README.md").read_text()):
        [python] = re.findall(r"`make install PYTHON=(/\S+)`", text)
        assert not python.startswith(("/home/", "/root/"))


def test_the_image_that_is_pushed_is_the_one_that_was_built():
    """`make image` alone builds linnaeus:gpu where an NVIDIA driver answers."""
    text = (DEPLOY / "README.md").read_text()
    tagged = re.findall(r"^docker tag linnaeus:(\w+)", text, re.MULTILINE)

    assert tagged
    assert tagged == re.findall(r"^make image DEVICE=(\w+)", text, re.MULTILINE)


def test_whoever_hides_devices_says_how_a_gpu_is_seen():
    """Without it `auto` serves on the CPU, and only a line of the log tells."""
    assert "\nPrivateDevices=yes\n" in (DEPLOY / "systemd/linnaeus.service").read_text()
    assert "`PrivateDevices=no`" in (DEPLOY / "README.md").read_text()


def test_kubernetes_makes_no_variables_that_stop_the_service():
    """A Service called linnaeus sets LINNAEUS_PORT=tcp://… unless links are off."""
    assert pod_of("cpu/linnaeus.yaml")["enableServiceLinks"] is False


def test_replicas_are_spread_over_the_nodes():
    """Two replicas on one node end together."""
    [spread] = pod_of("cpu/linnaeus.yaml")["topologySpreadConstraints"]

    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "linnaeus"
    }


def test_the_patch_for_gpus_changes_the_container_of_the_deployment():
    """One of another name would be a second container, beside it."""
    [patched] = pod_of("gpu/gpu.yaml")["containers"]
    [container] = pod_of("cpu/linnaeus.yaml")["containers"]

    assert patched["name"] == container["name"]
    assert patched["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("name", ["cpu/linnaeus.yaml", "gpu/gpu.yaml"])
def test_the_worst_images_fit_into_the_memory_of_the_pod(name):
    """Else a few kilobytes from a stranger get it killed."""
    limits = pod_of(name)["containers"][0]["resources"]["limits"]

    given = int(limits["memory"].removesuffix("Gi")) * 2**30
    assert given > memory_needed(int(limits["cpu"]), shared="gpu" in name)


def test_the_worst_images_fit_into_the_memory_of_the_unit():
    """As many cores as it grants, not as the machine has."""
    text = (DEPLOY / "systemd/linnaeus.service").read_text()
    [quota] = re.findall(r"^CPUQuota=(\d+)%$", text, re.MULTILINE)
    [memory] = re.findall(r"^MemoryMax=(\d+)G$", text, re.MULTILINE)

    assert int(memory) * 2**30 > memory_needed(int(quota) // 100)
