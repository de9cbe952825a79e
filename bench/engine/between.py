"""Between two cells of one process."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress


class Tidy:
    """Frees what a cell left; the modules that the first one imported are not searched again.

    What was freed goes back to the system and the GPU: libraries would keep it, while another
    worker's cell runs out of it and the next cell's peak counts it.
    """

    def __init__(self) -> None:
        self._frozen = False

    def __call__(self) -> None:
        gc.collect()
        if not self._frozen:
            gc.freeze()
            self._frozen = True
        with suppress(OSError, AttributeError):  # the C library is not GNU's
            ctypes.CDLL(None).malloc_trim(0)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
