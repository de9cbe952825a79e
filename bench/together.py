"""Starts the processes that train one cell together on several devices, and ends them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.device import Device
from bench.parent import die_with_parent
from bench.ranks import Ranks

if TYPE_CHECKING:
    from bench.cells.context import Context

TRAINING = {
    "fit": "bench.cells.fit:train",
    "labeller": "bench.cells.labeller:train",
    "segment": "bench.cells.segment:train",
}
"""The part of a kind of cell that every rank takes part in."""
TIMEOUT = timedelta(hours=2)
"""Of one exchange: the others wait while the leader validates."""
READY = "ready"


@contextmanager
def together(context: Context) -> Iterator[Context]:
    """`context` as the leader of the ranks that its device setting asks for, which now run.

    RuntimeError if another rank failed by itself. However the block ends, none of them remains.
    """
    world = context.device.devices
    if world == 1 or context.cell.kind not in TRAINING:
        yield context
        return
    import torch

    from bench.registry import plugin_files

    threads = torch.get_num_threads()
    context = replace(context, device=context.device.share_threads(world))
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        meeting = Path(folder)
        others: list[tuple[BaseProcess, Connection]] = []
        try:
            for rank in range(1, world):
                listen, speak = spawn.Pipe(duplex=False)
                place = (str(context.store.out), context.cell.key, meeting, rank, world)
                given = (context.device.model_dump(mode="json"), plugin_files())
                process = spawn.Process(target=_take_part, args=(*place, *given, speak))
                process.start()
                speak.close()
                others.append((process, listen))
            _await_ready(others)
            context.device.use_threads()
            with _member(context, meeting, 0, world) as leader:
                yield leader
        except RuntimeError as error:
            failure = _failure(others)
            # A failure of all ranks alike is told as the leader's own.
            if failure and failure != _told(error):
                raise RuntimeError(f"Another device failed: {failure}") from error
            raise
        finally:
            for other, _ in others:
                other.kill()
                other.join()
            torch.set_num_threads(threads)


def _await_ready(others: list[tuple[BaseProcess, Connection]]) -> None:
    """RuntimeError if a rank cannot begin: whoever joins the group waits for all of them."""
    for process, listen in others:
        try:
            told = listen.recv()
        except EOFError:
            process.join()
            told = f"its process ended with code {process.exitcode}"
        if told != READY:
            raise RuntimeError(f"Another device failed: {told}")


def _failure(others: list[tuple[BaseProcess, Connection]]) -> str:
    """What a rank told of its own failure; the leader saw no more than a closed connection."""
    for _, listen in others:
        with suppress(EOFError, OSError):
            if listen.poll(1.0):
                return str(listen.recv())
    return ""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _member(context: Context, meeting: Path, rank: int, world: int) -> Iterator[Context]:
    """In the group of all ranks, who meet in a file of `meeting`: no port is opened for it."""
    import torch.distributed as dist

    for backend in ("GLOO", "NCCL"):  # connections between the ranks: on this host alone
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", "lo")
    cuda = context.device.on_cuda()
    if cuda:
        import torch

        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=(meeting / "meeting").as_uri(),
        rank=rank,
        world_size=world,
        timeout=TIMEOUT,
    )
    try:
        yield replace(context, ranks=Ranks(rank, world, context.store.work(context.cell.key)))
    finally:
        dist.destroy_process_group()


def _take_part(
    out: str,
    key: str,
    meeting: Path,
    rank: int,
    world: int,
    device: dict[str, object],
    plugins: tuple[Path, ...],
    speak: Connection,
) -> None:
    """A rank beside the leader: the cell's training, of which nothing is kept here."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the leader, who tells the others
    from bench.cells.context import Context
    from bench.divergence import Diverged
    from bench.errors import Interrupted
    from bench.registry import load_plugin
    from bench.store import Store

    try:
        for path in plugins:
            load_plugin(path)
        store = Store(Path(out))
        setting = Device.model_validate(device)
        setting.use_threads()
        own = meeting / f"rank-{rank}"
        own.mkdir()
        context = Context(store.cell(key), store, own, setting, _silent, lambda: False)
        speak.send(READY)
        module, function = TRAINING[context.cell.kind].split(":")
        with _member(context, meeting, rank, world) as member:
            getattr(import_module(module), function)(member)
    except (Diverged, Interrupted):  # as every rank does, the leader among them
        pass
    except BaseException as error:
        speak.send(_told(error))
        os._exit(1)
    os._exit(0)


def _silent(step: int, total: int, scalars: object) -> None:
    """The leader tells the progress."""
