"""Peak memory of a stretch of work."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

INTERVAL_S = 0.1
MB = 2**20


def own_mb(process: psutil.Process) -> float:
    """Resident memory of a process in MiB without the pages of files that it has mapped."""
    return process.memory_info().rss / MB - mapped_mb(process)


def mapped_mb(process: psutil.Process) -> float:
    """Resident pages of files in MiB; 0 where the system does not tell them apart."""
    return float(getattr(process.memory_info(), "shared", 0)) / MB


class PeakMemory:
    """`with PeakMemory() as memory:` samples this process's resident memory; `memory.peak_mb`.

    The peak of the process's whole life, which the system keeps, would charge a cell with what an
    earlier one needed. Pages of files that are mapped meanwhile, as of volume sets, do not count:
    the system may take them back, and holds as many as it has room for. On CUDA the allocator's
    own peak is taken where it is larger.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        import torch

        if torch.cuda.is_available():
            self.peak_mb = max(self.peak_mb, torch.cuda.max_memory_allocated() / 2**20)

    def _watch(self) -> None:
        process = psutil.Process()
        libraries = mapped_mb(process)
        while True:
            used = own_mb(process) + min(mapped_mb(process), libraries)
            self.peak_mb = max(self.peak_mb, used)
            if self._stop.wait(INTERVAL_S):
                return
