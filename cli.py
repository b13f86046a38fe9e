"""The `linnaeus` command: a table of commands, each imported only when it is called.

`linnaeus serve` must start where torch is absent, and `linnaeus --help` at once.
"""

import os
import signal
import sys

# Before the other imports, which take seconds: for the first process of a container
# Linux drops a signal that has no handler. With this one SIGTERM ends it as it would
# any other process, with the status that shells give that; the server sets its own.
if os.getpid() == 1 and sys.argv[1:2] == ["serve"]:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))

import codecs
import errno
import importlib
import importlib.metadata
from io import TextIOWrapper
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Command(NamedTuple):
    """Where a command lives: a module with a function `command` or a group `app`."""

    module: str
    extra: str | None  # the optional dependencies that it needs
    help: str


# How Python holds the bytes of a name that is no valid Unicode (PEP 383).
FIRST_ESCAPED, ESCAPED_BYTES = 0x80, range(0xDC80, 0xDD00)

# A disk, a quota or the largest size of a file leaves no room.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

ROOMS = frozenset(("classifier", "service", "training"))

COMMANDS = {
    "serve": Command(
        "service.commands.serve", None, "Serve the bundles in models/ behind REST."
    ),
    "classify": Command(
        "service.commands.classify", None, "Classify files, folders and globs."
    ),
    "models": Command("service.commands.models", None, "List the bundles in models/."),
    "doctor": Command(
        "service.commands.doctor", None, "Check device, threads and bundles."
    ),
    "import": Command(
        "training.commands.import_", "import", "Make a bundle of a foreign ONNX file."
    ),
    "pretrained": Command(
        "training.commands.pretrained",
        "train,pretrained",
        "Build an ImageNet bundle from published weights.",
    ),
    "networks": Command(
        "training.commands.networks", "train", "List the networks that can be trained."
    ),
    "data": Command("training.commands.data", "train", "Check and describe data."),
    "train": Command("training.commands.train", "train", "Train by a config file."),
    "evaluate": Command(
        "training.commands.evaluate", "train", "Measure a bundle on a data set."
    ),
    "optimize": Command(
        "training.commands.optimize", "train", "Add a gated int8 graph, and fp16."
    ),
    "export": Command(
        "training.commands.export", "train", "Make a bundle of a trained run."
    ),
    "report": Command(
        "training.commands.report", "train", "Write one HTML page on a run or bundle."
    ),
}


class LazyCommand(TyperCommand):
    """Shows its help line in the list; becomes the real command when it is called."""

    def __init__(self, name: str, entry: Command) -> None:
        super().__init__(name=name, help=entry.help)
        self._entry = entry

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,
        **extra: Any,
    ) -> Any:
        """Import the command and let it parse its own arguments."""
        command = self._load(str(info_name))
        return command.make_context(info_name, args, parent, **extra)

    def _load(self, name: str) -> Any:
        module = importlib.import_module(self._entry.module)
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False, rich_markup_mode="rich")
            app.command(name=name)(module.command)
        return get_command(app)


class LazyGroup(TyperGroup):
    """A group of lazy commands, in the order of the table, which is that of use."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every name."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, not imported yet."""
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else LazyCommand(cmd_name, entry)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        try:
            number = importlib.metadata.version("linnaeus")
        except importlib.metadata.PackageNotFoundError:
            number = "from a checkout that is not installed"
        typer.echo(f"linnaeus {number}")
        raise typer.Exit


@app.callback()
def group(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Image classifiers from data to production: train, prove, shrink, serve."""
    if isinstance(sys.stdout, TextIOWrapper):
        codecs.register_error(as_it_can_be_shown.__name__, as_it_can_be_shown)
        sys.stdout.reconfigure(errors=as_it_can_be_shown.__name__)


def as_it_can_be_shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a terminal gets for a letter that its encoding lacks: no end of the command.

    A name of a file that is no valid Unicode comes out as its bytes went in.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code, following = ord(error.object[error.start]), error.start + 1
    if code in ESCAPED_BYTES:
        return bytes([code - ESCAPED_BYTES.start + FIRST_ESCAPED]), following
    return "?", following


def main() -> None:
    """Run the command; our own errors end with one clear line and exit code 1."""
    open_the_closed()
    try:
        run()
    except OSError as error:
        if error.errno not in FULL:
            raise
        typer.secho(f"linnaeus: cannot write: {error}", fg="red", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        advice = missing_extra(sys.argv[1], error)
        if advice is None:
            raise
        typer.secho(advice, fg="red", err=True)
        sys.exit(1)
    except Exception as error:
        # a class of our rooms is raised on purpose, with a text for people; its module
        # is not imported here, because the import may be what failed
        if type(error).__module__.partition(".")[0] not in ROOMS:
            raise
        typer.secho(f"linnaeus: {error}", fg="red", err=True)
        sys.exit(1)


def open_the_closed() -> None:
    """What a shell has closed (`>&-`) becomes /dev/null.

    Python has None there, which cannot be asked whether it is a terminal. And the next
    file or socket that is opened would take the number of the stream, and get what a
    library prints.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115  to the end
            os.set_inheritable(stream.fileno(), True)  # as those of a shell are
            setattr(sys, name, stream)


def run() -> None:
    """Run the command, and write all that it has printed.

    What is left in the buffer would be written while Python ends, too late to say in a
    line that the disk is full, or to end in silence where the reader (`head`) is gone.
    """
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno in (*FULL, errno.EPIPE):  # it is tried again while Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            sys.exit(1)  # as click does, where it has seen it before
        raise


def missing_extra(name: str, error: ModuleNotFoundError) -> str | None:
    """What to install for a command; None when it is our own module that is missing.

    The command may find out when it is imported or, later, when it runs. Not the extra
    `cpu` as well: a build of ONNX Runtime is there, and it may be the one for GPUs.
    """
    entry, module = COMMANDS.get(name), (error.name or "").split(".")[0]
    if entry is None or entry.extra is None or module in {"service", "training"}:
        return None
    return (
        f"linnaeus {name} needs {module}, which is not installed; install it, in the "
        f"folder of the checkout: pip install -c constraints.txt -e '.[{entry.extra}]'"
    )


if __name__ == "__main__":
    main()
