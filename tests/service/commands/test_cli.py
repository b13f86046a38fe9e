"""The `linnaeus` command: a table of lazy commands, mistakes answered with usage."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cli
from service.settings import Settings
from tests.classifier.processes import ROOT, python
from tests.synthetic import png

SERVING = ("serve", "classify", "models", "doctor")


def test_help_lists_every_command_with_its_line(linnaeus):
    """In the order of use, without importing one of them."""
    result = linnaeus("--help")

    assert result.exit_code == 0
    words = [line.split() for line in result.stdout.splitlines()]
    first = [line[1] for line in words if len(line) > 2 and line[1] in cli.COMMANDS]
    assert first == list(cli.COMMANDS)
    for entry in cli.COMMANDS.values():
        assert entry.help in result.stdout


@pytest.mark.parametrize("name", SERVING)
def test_each_command_explains_its_options(linnaeus, name):
    """`-h` does as well."""
    long, short = linnaeus(name, "--help"), linnaeus(name, "-h")

    assert long.exit_code == 0, long.output
    assert "--models" in long.stdout
    assert short.stdout == long.stdout


def test_serve_names_the_variable_of_each_option(linnaeus):
    """An option goes before its variable."""
    text = linnaeus("serve", "--help").stdout

    for option in ("host", "port", "models", "load", "device", "precision"):
        assert f"--{option}" in text
        assert f"LINNAEUS_{option.upper()}; default:" in re.sub(r"[\s│]+", " ", text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "70000"), "LINNAEUS_PORT is '70000'"),
        (("--host", "no host"), "cannot listen on no host:"),
        (("--models", "no models"), "no models is no folder"),
        (("--load", "no/1"), "no is no bundle"),
        (("--precision", "fp16"), "has no fp16 graph"),
        (("--device", "cpu"), "LINNAEUS_DEFAULT_MODEL is 'none'"),
    ],
    ids=lambda given: given[0],
)
def test_an_option_of_serve_goes_before_its_variable(
    linnaeus, monkeypatch, options, said
):
    """Each is seen in what it makes impossible, or possible."""
    monkeypatch.setenv("LINNAEUS_DEFAULT_MODEL", "none")  # it ends whatever happens
    monkeypatch.setenv("LINNAEUS_PORT", "0")
    monkeypatch.setenv("LINNAEUS_HOST", "127.0.0.1")
    monkeypatch.setenv("LINNAEUS_LOAD", "colors")
    monkeypatch.setenv("LINNAEUS_PRECISION", "fp32")
    if "--device" in options:  # which few machines have, and this one need not
        monkeypatch.setenv("LINNAEUS_DEVICE", "cuda")

    result = linnaeus("serve", *options)

    assert result.exit_code == 1
    assert said in str(result.exception)


@pytest.mark.parametrize("name", ["classify", "models", "doctor"])
def test_an_option_that_is_a_setting_too_has_its_variable_and_default(name):
    """So that the command answers as the service does."""
    lazy = cli.LazyCommand(name, cli.COMMANDS[name])
    command = lazy.make_context(name, [], resilient_parsing=True).command
    options = {
        "default_model" if p.name == "model" else p.name: p for p in command.params
    }
    shared = options.keys() & Settings.model_fields

    assert {"models"} <= shared
    for setting in shared:
        assert options[setting].envvar == f"LINNAEUS_{setting.upper()}"
        assert options[setting].default == Settings.model_fields[setting].default


@pytest.mark.parametrize("name", SERVING)
def test_an_unknown_option_is_a_usage_error(linnaeus, name):
    """Never ignored: a mistyped option would change nothing, in silence."""
    result = linnaeus(name, "--modell", "x")

    assert result.exit_code == 2
    assert "--modell" in result.stderr


def test_an_unknown_command_is_a_usage_error(linnaeus):
    """With the name that was given."""
    result = linnaeus("clasify")

    assert result.exit_code == 2
    assert "clasify" in result.stderr


def test_the_version_is_that_of_the_package(linnaeus):
    """One place says it."""
    result = linnaeus("--version")

    assert result.exit_code == 0
    assert result.stdout.startswith("linnaeus ")


HELP = """
import sys, cli
sys.argv = ["linnaeus", "--help"]
try:
    cli.main()
finally:
    heavy = {"torch", "onnxruntime", "onnx", "fastapi", "numpy", "PIL"}
    print("imported:", sorted(heavy & set(sys.modules)))
"""


def test_help_loads_nothing_heavy():
    """Neither torch nor ONNX Runtime, in the whole run of `linnaeus --help`."""
    result = python(HELP)

    assert "classify" in result.stdout
    assert "imported: []" in result.stdout


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("train", "torch", "train"),
        ("import", "onnx", "import"),
        ("pretrained", "onnx", "train,pretrained"),
    ],
)
def test_a_command_whose_extra_is_missing_says_which(name, module, extra):
    """Not a traceback: the serving image has no torch."""
    given = "efficientnet-lite0" if name == "pretrained" else "x"
    code = (
        f"import sys; sys.modules[{module!r}] = None; import cli; "
        f"sys.argv = ['linnaeus', {name!r}, {given!r}]; cli.main()"
    )

    result = python(code, check=False)

    assert result.returncode == 1
    assert f"linnaeus {name} needs {module}, which is not installed" in result.stderr
    assert f"-e '.[{extra}]'" in result.stderr  # `cpu` would spoil a GPU installation
    assert "in the folder of the checkout" in result.stderr  # `.` is nothing elsewhere
    assert "Traceback" not in result.stderr


def test_two_builds_of_onnx_runtime_are_told_in_one_line(tmp_path):
    """The import itself fails, and still nobody sees a traceback."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    for name in ("onnxruntime", "onnxruntime_gpu"):
        info = tmp_path / f"{name}-1.31.1.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\n"
        (info / "METADATA").write_text(text + "Version: 1.31.1\n")

    done = python(
        "import sys; sys.path.insert(0, sys.argv.pop()); sys.argv.append('doctor')\n"
        "import cli; cli.main()",
        tmp_path,
        check=False,
    )

    assert done.returncode == 1
    assert "uninstall both" in done.stderr
    assert "Traceback" not in done.stderr


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has such a device")
@pytest.mark.parametrize(
    "command",
    [
        ("models",),
        ("classify", "--model=colors", "--format=csv", "-"),
        ("classify", "--model=colors", "--format=jsonl", "-"),
        ("--help",),
    ],
    ids=" ".join,
)
def test_a_full_disk_under_the_output_is_told_in_one_line(models, command):
    """Whether a line is written at once, or what was printed when all is done."""
    buffered = {"LINNAEUS_MODELS": str(models), "PYTHONUNBUFFERED": ""}
    with FULL.open("w") as full:
        done = subprocess.run(
            (sys.executable, "-c", "import cli; cli.main()", *command),
            cwd=ROOT,
            env=os.environ | buffered,
            input=png((10, 240, 10)),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )

    [line] = done.stderr.decode().splitlines()
    assert line == "linnaeus: cannot write: [Errno 28] No space left on device"
    assert done.returncode == 1


def test_an_output_that_is_closed_takes_nothing_and_is_no_fault(models):
    """As a shell leaves it by `>&-`."""
    done = subprocess.run(
        (
            *("sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "cli"),
            *("classify", "--model=colors", "--format=csv", "-"),
        ),
        cwd=ROOT,
        env=os.environ | {"LINNAEUS_MODELS": str(models)},
        input=png((10, 240, 10)),
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )

    assert (done.stderr, done.returncode) == (b"", 0)


@pytest.mark.parametrize(
    "command",
    [("models",), ("classify", "--model=colors", "--format=csv", "-")],
    ids=" ".join,
)
def test_a_reader_that_is_gone_ends_a_command_in_silence(models, command):
    """`linnaeus models | head -0` shows no traceback, whenever it is written."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            (sys.executable, "-c", "import cli; cli.main()", *command),
            cwd=ROOT,
            env=os.environ | {"LINNAEUS_MODELS": str(models), "PYTHONUNBUFFERED": ""},
            input=png((10, 240, 10)),
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)

    assert (done.stderr, done.returncode) == (b"", 1)


# The process that is started is number 1 of a namespace, and ends with its parent.
CONTAINER = ("unshare", "--map-root-user", "--pid", "--kill-child")


@contextmanager
def contained(*command: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that is the first of its container; its parent, and all it prints."""
    try:
        subprocess.run((*CONTAINER, "true"), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespace of processes can be made here: {error}")
    with subprocess.Popen(
        (*CONTAINER, *command),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as parent:
        yield parent
        parent.kill()


@pytest.mark.parametrize("imported", ["click", "onnxruntime"])
def test_a_container_that_is_stopped_while_it_imports_ends_at_once(imported, tmp_path):
    """The kernel lets process 1 miss a signal; Docker would wait, and then kill it."""
    serve = (sys.executable, "-X", "importtime", "cli.py", "serve", "--port=0")
    with contained(*serve, f"--models={tmp_path}") as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        assert parent.stdout is not None
        lines = iter(parent.stdout)
        next(line for line in lines if f" {imported}." in line)
        os.kill(int(children.read_text()), signal.SIGTERM)
        rest = "".join(lines)
        code = parent.wait(timeout=60)

    assert code == 128 + signal.SIGTERM
    assert "holds no bundle" not in rest  # which is what it would find next
