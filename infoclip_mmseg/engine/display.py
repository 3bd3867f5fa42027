"""What a program shows to a person while MMEngine's logs go to a file."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def logs_to_file(path: Path | str, verbose: bool = False) -> Iterator[Console]:
    """Send standard output, standard error and warnings of all packages to a file.

    Around all that a program does: MMEngine's loggers keep the stream that they first wrote to, and
    get the terminal's back at the end. The file's folder is made, and text is added to what it
    holds; ``verbose`` leaves everything on the terminal. Yields a console of the terminal.
    """
    console = Console(file=sys.stdout, highlight=False)
    if verbose:
        yield console
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context(path.open('a', encoding='utf-8', errors='backslashreplace'))
        stack.callback(_move_loggers, file, sys.stdout)
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(redirect_stdout(file))
        stack.enter_context(redirect_stderr(file))
        try:
            yield console
        except Exception:
            console.print(f'stopped; the logs of this run are in {path}', soft_wrap=True)
            raise


def _move_loggers(file: TextIO, stream: TextIO) -> None:
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if getattr(handler, 'stream', None) is file:
                handler.setStream(stream)


def make_progress(console: Console) -> Progress:
    """A progress bar for each step of a program, with the time that is left."""
    columns = (TextColumn('{task.description}'), BarColumn(bar_width=24), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=console)


class ProgressHook(Hook):
    """Shows how far training and test of a runner are, the title before the bars."""

    def __init__(self, progress: Progress, title: str) -> None:
        self.progress, self.title = progress, title
        self.task: Any = None

    def before_train(self, runner: Runner) -> None:
        """Open the bar of the training."""
        self.task = self.progress.add_task(f'{self.title}: training', total=runner.max_iters)

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Move on by an iteration."""
        self.progress.update(self.task, completed=runner.iter + 1)

    def before_test(self, runner: Runner) -> None:
        """Open the bar of the test."""
        total = len(runner.test_dataloader)
        self.task = self.progress.add_task(f'{self.title}: test, batches', total=total)

    def after_test_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Move on by a batch."""
        self.progress.update(self.task, completed=batch_idx + 1)
