"""Between two cells of one process."""

from __future__ import annotations

import gc


class Tidy:
    """Frees what a cell left; the modules that the first one imported are not searched again."""

    def __init__(self) -> None:
        self._frozen = False

    def __call__(self) -> None:
        gc.collect()
        if not self._frozen:
            gc.freeze()
            self._frozen = True
