"""long work → **progress**: a live line on a terminal, by rich if it is there."""

from typing import Protocol, TextIO


class Bar(Protocol):
    """Shows how far something is."""

    def show(self, step: int, text: str) -> None:
        """So many steps are done."""

    def aim(self, total_steps: int) -> None:
        """So many steps make the whole now."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """It is over."""


class _Quiet:
    """No terminal: lines only, to the stream if there is one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def show(self, step: int, text: str) -> None:
        """Nothing: a log file wants no moving line."""

    def aim(self, total_steps: int) -> None:
        """Nothing either."""

    def say(self, text: str) -> None:
        """Write a line."""
        if self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Nothing to let go of."""


class _Bar:
    """A live progress line by rich."""

    def __init__(self, live: TextIO, total_steps: int, first_step: int) -> None:
        from rich.console import Console  # noqa: PLC0415 - slow to import
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(file=live),
            redirect_stdout=False,  # it may be a file while the line is on stderr
        )
        self._task = self._progress.add_task(
            "starting", total=total_steps, completed=first_step
        )
        self._progress.start()

    def show(self, step: int, text: str) -> None:
        """Move the line."""
        self._progress.update(self._task, completed=step, description=text)

    def aim(self, total_steps: int) -> None:
        """Change the line's end."""
        self._progress.update(self._task, total=total_steps)

    def say(self, text: str) -> None:
        """Write a line above the moving one."""
        self._progress.console.print(text, markup=False, emoji=False, highlight=False)

    def close(self) -> None:
        """Let go of the terminal."""
        self._progress.stop()


def open_bar(live: TextIO | None, total_steps: int, first_step: int = 0) -> Bar:
    """A line that moves on a terminal; on any other stream only what is said."""
    if live is not None and live.isatty():
        try:
            return _Bar(live, total_steps, first_step)
        except ImportError:  # on a bare host, where the CIFAR-10 table runs
            pass
    return _Quiet(live)
