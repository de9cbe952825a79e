"""Carrying out a plan with a person watching: signals, progress, the closing lines."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape

from bench.cli.progress import make_watcher
from bench.engine import Engine, Outcome
from bench.engine.config import EngineConfig
from bench.engine.inline import InlineEngine
from bench.engine.schedule import Again
from bench.errors import Interrupted
from bench.harness import Plan, describe, repeats, start
from bench.store import Store

INTERRUPTED = 130


def go(
    plan: Plan,
    out: Path,
    again: Again,
    config: EngineConfig | None = None,
    estimate: bool = False,
) -> int:
    """Run the plan and return the exit code: 0 all done, 1 some cells failed, 130 interrupted.

    `estimate`: say first what the run takes, where that may be over an hour.
    """
    console = Console()
    data = plan.data
    held = f", {data.n_held} held-out" if data.n_held else ""
    head = (
        f"{data.name}: {data.n_train} training, {data.n_val} validation, {data.n_test} test{held} "
        f"cases; {len(plan.cells)} cells into {out}"
    )
    for line in filter(None, (head, repeats(plan), where_curves_are(out))):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    workers = config.workers if config else 0
    try:
        if estimate and not (config and config.provider == "slurm"):  # another machine's time
            say_what_it_takes(console, plan, out, workers)
        with (
            stop_on_signals() as stop,
            make_watcher(console, plan.cells, Store(out), workers) as watcher,
        ):
            engine = make_engine(config, plan)
            outcome = start(plan, out, engine, watcher, stop.requested, again)
    except (Interrupted, KeyboardInterrupt) as error:
        reason = str(error) or "Interrupted."
        for line in (f"{reason} Finished cells are kept. To go on:", f"  {same_command()}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return INTERRUPTED
    return close(console, plan, out, outcome)


def say_what_it_takes(console: Console, plan: Plan, out: Path, workers: int) -> None:
    """Hours, memory and disk of a long run, measured in about a minute."""
    from bench.cli.foresee import foresee

    with console.status("") as status:
        line = foresee(
            plan, Store(out), workers, lambda what: status.update(f"measuring {escape(what)}")
        )
    if line:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def same_command() -> str:
    """What the user typed, for the shell."""
    program = Path(sys.argv[0]).name
    return shlex.join(["bench" if program == "main.py" else program, *sys.argv[1:]])


def where_curves_are(out: Path) -> str:
    """How to watch the fits; "" where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        return ""
    return f"Curves: tensorboard --logdir {shlex.quote(str(out / 'cells'))}"


def make_engine(config: EngineConfig | None, plan: Plan) -> Engine:
    """This process, or the workers that were asked for."""
    if config is None:
        return InlineEngine()
    from bench.engine.parsl_engine import ParslEngine

    return ParslEngine(config, plan.plugins)


def close(console: Console, plan: Plan, out: Path, outcome: Outcome) -> int:
    """Show the tables and where they lie; the exit code of the run."""
    from bench.report import report
    from bench.runs import StoredRun
    from leaderboard import terminal_tables

    board = report([StoredRun(Store(out), describe(plan))], out)
    for table in terminal_tables(board, console.width):
        console.print(table)
    for note in board.info.notes:
        console.print(note, highlight=False, markup=False)
    for name in ("leaderboard.md", "leaderboard.html"):
        path = str(out / "leaderboard" / name)
        console.print(path, highlight=False, markup=False, soft_wrap=True)
    failed = [key for key, (status, _) in outcome.items() if status == "failed"]
    blocked = [key for key, (status, _) in outcome.items() if status == "blocked"]
    if not failed:
        return 0
    console.print(
        f"{len(failed)} of {len(outcome)} cells failed and {len(blocked)} could not run for it; "
        f"the reasons stand under the tables and in bench status {out}. "
        "Try them again with --retry-failed.",
        highlight=False,
    )
    return 1


class Stop:
    """Set by the first SIGINT or SIGTERM; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self._asked = False

    def requested(self) -> bool:
        return self._asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        print(
            "Stopping after this step, with a checkpoint; press Ctrl-C again to stop at once.",
            file=sys.stderr,
        )


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request that training loops and cells honour."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
