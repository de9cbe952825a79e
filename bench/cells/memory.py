"""Peak memory of a stretch of work."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

INTERVAL_S = 0.1


class PeakMemory:
    """`with PeakMemory() as memory:` samples this process's resident memory; `memory.peak_mb`.

    The peak of the process's whole life, which the system keeps, would charge a cell with what an
    earlier one needed. On CUDA the allocator's own peak is taken where it is larger.
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
        while True:
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / 2**20)
            if self._stop.wait(INTERVAL_S):
                return
