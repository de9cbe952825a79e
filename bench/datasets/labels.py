"""Label ids and their names: merging ids of one name, as the configuration asks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BACKGROUND = "background"


def merge_names(names: Mapping[int, str]) -> tuple[dict[int, str], NDArray[np.uint8]]:
    """Label names without repetition, and the look-up table (256,) uint8 that merges the ids.

    Ids of one name become the lowest of them; ids named "background" become 0, which is always
    the background.
    """
    first: dict[str, int] = {BACKGROUND: 0}
    table = np.zeros(256, dtype=np.uint8)
    for label, name in sorted(names.items()):
        if label != 0:
            table[label] = first.setdefault(name, label)
    return {label: name for name, label in first.items()}, table
