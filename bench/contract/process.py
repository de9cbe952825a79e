"""What a plug-in does to its process, and what it does in another one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.contract.requirement import Broken, told

TIMEOUT_S = 300.0
START = "spawn"
"""How another process is started: nothing is inherited, as on another machine."""

TORCHS_OWN = ("TORCH", "PYTORCH")
"""Beginnings of environment variables that torch sets when parts of it are first used."""

_listeners: list[set[Path]] = []


@contextmanager
def files_opened() -> Iterator[set[Path]]:
    """Every file that Python opens in the body."""
    _listen()
    opened: set[Path] = set()
    _listeners.append(opened)
    try:
        yield opened
    finally:
        _listeners.remove(opened)


@cache
def _listen() -> None:
    """Once for the process: an audit hook cannot be taken away."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and _listeners and isinstance(arguments[0], str | bytes | os.PathLike):
            path = Path(os.fsdecode(arguments[0])).absolute()
            for opened in _listeners:
                opened.add(path)

    sys.addaudithook(hear)


def process_state() -> dict[str, object]:
    """What a process has once, and a plug-in may not change for all others in it.

    Random states are not among it: the harness sets them before every cell.
    """
    import numpy as np
    import torch

    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": str(torch.get_default_device()),
        "torch's threads": torch.get_num_threads(),
        "whether torch computes gradients": torch.is_grad_enabled(),
        "whether torch is deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch's precision of float32 products": torch.get_float32_matmul_precision(),
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "NumPy's handling of errors": tuple(np.geterr().items()),
        "the working directory": Path.cwd(),
        "the handler of SIGINT": signal.getsignal(signal.SIGINT),
        "the handler of SIGTERM": signal.getsignal(signal.SIGTERM),
        **{
            f"the environment variable {key}": value
            for key, value in os.environ.items()
            if not key.startswith(TORCHS_OWN)
        },
    }


def restore(state: Mapping[str, Any]) -> None:
    """Undo what most disturbs later checks."""
    import torch

    torch.set_default_dtype(state["torch's default dtype"])
    torch.set_num_threads(state["torch's threads"])
    torch.set_grad_enabled(state["whether torch computes gradients"])
    os.chdir(state["the working directory"])


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """A clause for everything that differs."""
    names = dict.fromkeys((*before, *after))
    return [
        f"{name} was {before.get(name, 'unset')} and is {after.get(name, 'unset')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def elsewhere(plugins: Sequence[Path], work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(*arguments)` in a fresh process that has loaded the plug-in files.

    Raises:
        Broken: it raised, died or took longer than `TIMEOUT_S`.
    """
    context: Any = multiprocessing.get_context(START)
    hear, speak = context.Pipe(duplex=False)
    files = tuple(str(path) for path in plugins)
    process = context.Process(target=_serve, args=(speak, files, work, arguments), daemon=True)
    process.start()
    speak.close()
    try:
        problem = hear.recv() if hear.poll(TIMEOUT_S) else f"took longer than {TIMEOUT_S:g} s"
    except EOFError:
        process.join()
        problem = f"died with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()
    if problem:
        raise Broken(f"in another process it {problem}")


def _serve(
    speak: Connection, plugins: Sequence[str], work: Callable[..., None], arguments: Sequence[Any]
) -> None:
    from bench.registry import load_plugin

    problem = ""
    try:
        for path in plugins:
            load_plugin(Path(path))
        work(*arguments)
    except (Exception, SystemExit) as error:
        problem = f"raised {told(error)}"
    speak.send(problem)
