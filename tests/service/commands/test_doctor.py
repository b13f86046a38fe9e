"""`linnaeus doctor`: what is really used, what is wrong, what to do about it."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from classifier import hardware, resample
from classifier.bundle import load_bundle
from classifier.decode import MAX_BYTES_A_PIXEL
from classifier.device import cuda_problem
from classifier.golden import Golden, write_golden
from classifier.manifest import Precision
from service.commands import doctor
from service.engine.arrangement import Arrangement
from service.engine.models import load_model
from service.files import MOST_FILES
from tests.classifier.processes import ROOT
from tests.classifier.test_classifier import two_graphs
from tests.synthetic import make_bundle


def test_a_sound_machine_and_bundle_are_found_so(linnaeus, tmp_path):
    """Device, threads, formats, golden replay and how the bundle is served."""
    make_bundle(tmp_path)

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert result.exit_code == 0, result.output
    for text in (
        "affinity",
        "onnxruntime 1.",
        "JPEG, PNG, WEBP",
        "scaling",
        "cpu: the CPU was asked for",
        "golden replay off by 0 (allowed 0.0001) on CPUExecutionProvider",
        "colors/1",
        "ms an image",
    ):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.onnx", "SHA-256"),
        ("golden.npz", "cannot read"),
        ("manifest.json", "manifest.json"),
    ],
)
def test_a_broken_bundle_is_a_problem_with_advice(linnaeus, tmp_path, name, message):
    """Exit code 1; the sound one beside it is examined all the same."""
    (make_bundle(tmp_path) / name).write_bytes(b"damaged")
    make_bundle(tmp_path, "whole")

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert result.exit_code == 1
    assert re.fullmatch(r"\d problems? found\n", result.stderr)
    assert message in result.stdout
    assert "rebuild" in result.stdout
    assert "whole/1 fp32" in result.stdout


def test_a_graph_that_answers_otherwise_here_is_a_problem(linnaeus, tmp_path):
    """Its bytes are right, and this machine makes other logits of them."""
    folder = make_bundle(tmp_path)
    bundle = load_bundle(folder)
    golden = bundle.read_golden()
    logits = {precision: of + 1 for precision, of in golden.logits.items()}
    other = write_golden(Golden(golden.pixels, logits), bundle.manifest)
    (bundle.folder / "golden.npz").write_bytes(other)

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert result.exit_code == 1
    assert re.search(r"problem +colors/1 fp32 .* off by 1", result.stdout)
    assert "golden replay off" not in result.stdout
    assert "serve another precision" in result.stdout


def test_slower_scaling_is_noted_with_its_reason(linnaeus, tmp_path, monkeypatch):
    """No problem: the answers are the same."""
    make_bundle(tmp_path)
    monkeypatch.setattr(resample, "kernels", None)
    resample.why_pillow_scales.cache_clear()

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    resample.why_pillow_scales.cache_clear()
    assert result.exit_code == 0, result.output
    assert re.search(r"note +scaling +by Pillow", result.stdout)
    assert "cykooz-resizer is not installed" in result.stdout


def test_the_arrangement_is_shown_as_the_settings_want_it(
    linnaeus, tmp_path, monkeypatch
):
    """What would really be served, by the variables that the service reads."""
    make_bundle(tmp_path)
    monkeypatch.setenv("LINNAEUS_LANES", "3")
    monkeypatch.setenv("COLUMNS", "300")

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert "fp32 in 3 lanes" in result.stdout


@pytest.mark.parametrize(
    ("narrow_s", "where"), [(1, ""), (0, " (tiny images: on the event loop)")]
)
def test_an_arrangement_is_told_in_lanes_threads_and_milliseconds(
    linnaeus, tmp_path, monkeypatch, narrow_s, where
):
    """Of the graph that would be served, with known costs in place of measured ones."""
    folder = two_graphs(tmp_path, passed=True)

    def known(*arguments, **options):
        model = load_model(*arguments, **options)
        crowd = model.arrangement.crowd
        arranged = Arrangement(
            lanes=1,
            crowd=replace(crowd, threads=1, batch=8, cost_s=0.0125),
            lone=replace(crowd, threads=4, batch=1, cost_s=0.004),
            narrow_s=narrow_s,
            abreast=1,
        )
        return replace(model, arrangement=arranged)

    monkeypatch.setattr(doctor, "load_model", known)
    monkeypatch.setenv("LINNAEUS_PRECISION", "int8")

    result = linnaeus("doctor", "--models", folder.parents[1], "--device", "cpu")

    assert (
        f"int8 in 1 lane{where}, each a run of 1 thread with up to 8 images, 12.5 ms "
        "an image; a lone image on 4 threads, 4 ms" in " ".join(result.stdout.split())
    )


def test_a_broken_graph_does_not_hide_the_one_after_it(linnaeus, tmp_path):
    """Each is examined; what cannot be served is told with where to look."""
    folder = two_graphs(tmp_path, passed=True)
    (folder / "model.onnx").write_bytes(b"damaged")

    result = linnaeus("doctor", "--models", folder.parents[1], "--device", "cpu")

    assert result.exit_code == 1
    assert re.search(r"problem +colors/1 fp32 +.*SHA-256", result.stdout)
    assert re.search(r"ok +colors/1 int8 +golden replay off by", result.stdout)


def test_each_graph_is_replayed_against_what_it_gave_itself(linnaeus, tmp_path):
    """Not against the logits of the one before it."""
    bundle = load_bundle(two_graphs(tmp_path, passed=True))
    golden = bundle.read_golden()
    logits = golden.logits | {Precision.INT8: golden.logits[Precision.INT8] + 5e-5}
    other = write_golden(Golden(golden.pixels, logits), bundle.manifest)
    (bundle.folder / "golden.npz").write_bytes(other)

    models = bundle.folder.parents[1]
    result = linnaeus("doctor", "--models", models, "--device", "cpu")

    assert re.search(r"ok +colors/1 fp32 +golden replay off by 0 ", result.stdout)
    assert re.search(r"ok +colors/1 int8 +golden replay off by \de-05 ", result.stdout)


def test_a_wrong_setting_is_a_problem(linnaeus, tmp_path, monkeypatch):
    """The service would refuse to start with it."""
    monkeypatch.setenv("LINNAEUS_LANES", "many")

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert result.exit_code == 1
    assert "LINNAEUS_LANES" in result.stdout


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("LINNAEUS_LOAD", "nope", "nope is no bundle"),
        ("LINNAEUS_LOAD", "colors/2", "has no version 2"),
        ("LINNAEUS_DEFAULT_MODEL", "is-red", "is 'is-red'; loaded are"),
    ],
)
def test_a_model_that_is_not_there_is_a_problem(
    linnaeus, tmp_path, monkeypatch, name, value, text
):
    """The service would refuse to start; in the folder of LINNAEUS_MODELS they are."""
    make_bundle(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv(name, value)

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert result.exit_code == 1
    assert text in result.stdout


@pytest.mark.parametrize(
    ("folder", "said"), [("", "holds none"), ("none", "is no folder")]
)
def test_no_bundle_is_a_problem_with_advice(linnaeus, tmp_path, folder, said):
    """A service would not start."""
    models = tmp_path / folder

    result = linnaeus("doctor", "--models", models, "--device", "cpu")

    assert result.exit_code == 1
    assert result.stderr == "1 problem found\n"
    assert f"{models} {said}" in result.stdout
    assert "linnaeus pretrained efficientnet-lite0" in result.stdout


def test_names_are_shown_as_they_are(linnaeus, tmp_path):
    """Brackets are no colors of the terminal, and colons no emoji."""
    bundle = tmp_path / ":cat: [b]" / "[b]pets" / "1"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text("{")

    shown = linnaeus("doctor", "--models", bundle.parents[1], "--device", "cpu").stdout

    assert re.search(r"problem +\[b\]pets/1 ", shown)
    assert str(bundle) in " ".join(shown.split())


@pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")
def test_a_folder_that_cannot_be_read_is_a_problem_with_advice(linnaeus, tmp_path):
    """What was found of the machine is told all the same."""
    result = linnaeus("doctor", "--models", tmp_path / ("a" * 1000))

    assert result.exit_code == 1
    assert "File name too long" in result.output
    assert "→ let the user that serves read it" in result.output
    assert "threads" in result.output


def test_advice_is_told_where_the_terminal_has_no_arrows(tmp_path):
    """A pipe of Windows has another encoding than UTF-8."""
    result = subprocess.run(
        [sys.executable, "cli.py", "doctor", "--models", tmp_path],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )

    assert result.stderr == b"1 problem found\n"
    assert b"? set LINNAEUS_MODELS, or build one" in result.stdout


# As the kernel ends a process where there is too little memory for a bundle.
KILLED = """
import os, signal, cli
from service.commands import doctor

doctor.load_bundle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cli.main()
"""


def test_a_doctor_that_is_killed_has_told_what_it_found(tmp_path):
    """A bundle may need more memory than there is; how much there is was told then."""
    make_bundle(tmp_path)
    killed = subprocess.run(
        (sys.executable, "-c", KILLED, "doctor", "--models", tmp_path),
        cwd=ROOT,
        env=os.environ | {"LINNAEUS_DEVICE": "cpu", "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )

    assert killed.returncode == -signal.SIGKILL
    assert b"memory" in killed.stdout


def test_a_device_that_does_not_work_is_a_problem_with_advice(linnaeus, tmp_path):
    """Nothing falls back in silence."""
    result = linnaeus("doctor", "--models", tmp_path, "--device", "cuda")

    assert result.exit_code == 1
    assert "CUDA was asked for, but" in result.stdout
    assert "LINNAEUS_DEVICE=auto" in result.stdout


def test_nothing_is_cut_off_on_a_narrow_terminal(linnaeus, tmp_path, monkeypatch):
    """The path of a damaged file is what one needs to know."""
    (make_bundle(tmp_path) / "golden.npz").write_bytes(b"damaged")
    monkeypatch.setenv("COLUMNS", "50")

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert "…" not in result.stdout
    assert str(tmp_path / "colors/1/golden.npz") in "".join(result.stdout.split())


def test_memory_for_the_worst_images_is_compared_with_what_there_is(
    linnaeus, tmp_path, monkeypatch
):
    """Advice names a number of pixels that fits, where one does beside the bodies."""
    there = hardware.memory_bytes()
    if there is None:
        pytest.skip("this machine does not say how much memory it has")
    make_bundle(tmp_path)
    monkeypatch.setenv("LINNAEUS_MAX_BUFFERED_BYTES", str(there - 10**8))

    tight = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")
    [fitting] = re.findall(r"LINNAEUS_MAX_PIXELS to (\d+)", tight.stdout)
    monkeypatch.setenv("LINNAEUS_MAX_PIXELS", fitting)
    fits = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")
    monkeypatch.setenv("LINNAEUS_MAX_BUFFERED_BYTES", str(there + 10**8))
    over = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert "set LINNAEUS_MAX_BUFFERED_BYTES to less" in over.stdout
    assert f"there are {there / 1e9:.1f} GB" in tight.stdout
    assert "MAX_PIXELS" not in fits.stdout


def test_the_places_of_a_shared_engine_need_memory_too(linnaeus, tmp_path, monkeypatch):
    """Each process beside the leader has its own, and fills them once."""
    make_bundle(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("LINNAEUS_PROCESSES", "3")
    monkeypatch.setenv("LINNAEUS_LANES", "1")
    monkeypatch.setenv("LINNAEUS_QUEUE_CAPACITY", "1000000")

    gigabytes = {}
    for engine in ("own", "shared"):
        monkeypatch.setenv("LINNAEUS_ENGINE", engine)
        found = linnaeus("doctor", "--models", tmp_path, "--device", "cpu").stdout
        gigabytes[engine] = float(re.findall(r"at worst ([\d.]+) GB", found)[0])

    # two of three processes, singles and batches, 8x8 pixels of three colors
    places = 2 * 2 * 1_000_000 * 192
    assert gigabytes["shared"] - gigabytes["own"] == pytest.approx(
        places / 1e9, abs=0.11
    )


def test_fewer_connections_than_are_set_are_noted(linnaeus, tmp_path, monkeypatch):
    """What `serve` would take, and what to do about it."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    make_bundle(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))

    scarce = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")
    monkeypatch.setenv("LINNAEUS_MAX_CONNECTIONS", "960")
    enough = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert scarce.exit_code == 0
    assert "at most 960 in a process, not 4096" in scarce.stdout
    assert (
        "(ulimit -Hn) to 4160, or set LINNAEUS_MAX_CONNECTIONS to 960" in scarce.stdout
    )
    assert "at most 960 in a process" in enough.stdout
    assert "MAX_CONNECTIONS" not in enough.stdout


def test_a_soft_limit_on_files_is_none(linnaeus, tmp_path):
    """The service raises it, so the doctor does."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert "at most 448 in a process" not in result.stdout
    assert soft == min(before[1], MOST_FILES)


def test_a_quota_of_part_of_a_core_is_noted(linnaeus, tmp_path, monkeypatch):
    """Lanes are threads, and one of them would be stopped again and again."""
    shown = {}
    for quota in (1.5, 1.0):
        monkeypatch.setattr(hardware, "quota_cores", lambda of=quota: of)
        cores = hardware.available_cores()
        shown[quota] = linnaeus(
            "doctor", "--models", tmp_path, "--device", "cpu"
        ).stdout
        assert f"{cores} cores: affinity {hardware.affinity_cores()}" in shown[quota]

    assert "a cgroup quota of 1.5 cores" in shown[1.5]
    assert "a quota of whole cores keeps lanes from being throttled" in shown[1.5]
    assert "a cgroup quota of 1 cores" in shown[1.0]
    assert "throttled" not in shown[1.0]


def test_a_processor_without_8_bit_products_is_noted(linnaeus, tmp_path, monkeypatch):
    """What `auto` serves there is told, because the int8 graph is not it."""
    shown = {}
    for fast in (True, False):
        monkeypatch.setattr(hardware, "has_fast_int8", lambda of=fast: of)
        result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")
        shown[fast] = result.stdout

    assert "8-bit dot products in hardware" in shown[True]
    assert "no 8-bit dot products" not in shown[True]
    assert "no 8-bit dot products (VNNI) in hardware" in shown[False]
    assert "'auto' serves fp32 here" in shown[False]


def test_a_processor_that_is_not_known_is_not_called_slow(
    linnaeus, tmp_path, monkeypatch
):
    """Nothing says on macOS which instructions there are."""
    monkeypatch.setattr(hardware, "cpu_flags", frozenset)

    shown = linnaeus("doctor", "--models", tmp_path, "--device", "cpu").stdout

    assert "does not say whether there are 8-bit dot products" in shown
    assert "'auto' serves fp32 here" in shown
    assert "faster on this processor" not in shown


def test_the_worst_images_are_as_many_as_lanes(linnaeus, tmp_path, monkeypatch):
    """Of the settings, where these say how many; and of each process."""
    make_bundle(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("LINNAEUS_LANES", "7")
    monkeypatch.setenv("LINNAEUS_PROCESSES", "3")

    monkeypatch.setenv("LINNAEUS_MAX_BUFFERED_BYTES", str(10**8))

    said = linnaeus("doctor", "--models", tmp_path, "--device", "cpu").stdout
    monkeypatch.delenv("LINNAEUS_LANES")
    shared = linnaeus("doctor", "--models", tmp_path, "--device", "cpu").stdout

    worst = 21 * 50_000_000 * MAX_BYTES_A_PIXEL + 3 * 10**8
    assert f"at worst {worst / 1e9:.1f} GB for images in 21 lanes and bodies" in said
    lanes = 3 * max(1, hardware.available_cores() // 3)
    assert f"GB for images in {lanes} lanes and bodies in 3 processes;" in shared


def test_the_bodies_of_each_process_are_counted(linnaeus, tmp_path, monkeypatch):
    """Each holds its own, up to the bound."""
    make_bundle(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("LINNAEUS_MAX_BUFFERED_BYTES", str(10**9))
    monkeypatch.setenv("LINNAEUS_MAX_PIXELS", "1")  # each has lanes, too
    found = []
    for processes in ("1", "3"):
        monkeypatch.setenv("LINNAEUS_PROCESSES", processes)
        shown = linnaeus("doctor", "--models", tmp_path, "--device", "cpu").stdout
        found += re.findall(r"at worst ([\d.]+) GB .* bodies in (\d) process", shown)

    (one, _), (three, _) = found
    assert [processes for _, processes in found] == ["1", "3"]
    assert float(three) - float(one) == pytest.approx(2)


def test_a_mistyped_setting_is_a_problem(linnaeus, tmp_path, monkeypatch):
    """The service would refuse to start."""
    make_bundle(tmp_path)
    monkeypatch.setenv("LINNAEUS_MAX_PIXEL", "1")

    result = linnaeus("doctor", "--models", tmp_path, "--device", "cpu")

    assert result.exit_code == 1
    assert result.stderr == "1 problem found\n"
    assert "did you mean LINNAEUS_MAX_PIXELS?" in result.stdout
