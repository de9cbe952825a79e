"""What a page shows beside the records: volumes, segmentations, training curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

VOLUMES, CHANGES = "volumes.png", "changes.png"
"""Files of the stills, for what shows no HTML."""

Grey = NDArray[np.uint8]  # (R, A, S)
Classes = NDArray[np.uint8]  # (R, A, S); 0 is the background


@dataclass(frozen=True)
class Volume:
    """An image with one or several label maps of it, each under its title."""

    name: str
    image: Grey
    spacing: tuple[float, float, float]  # mm along R, A, S
    labels: Mapping[str, Classes]  # title -> label map; {} where there are none


@dataclass(frozen=True)
class Row:
    """Volumes that stand beside one another, and the names of their classes 1, 2, ..."""

    title: str
    volumes: tuple[Volume, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Pictures:
    """All of it; what could not be read is left out, with a sentence for each."""

    rows: tuple[Row, ...] = ()  # real test volumes first, then a row per generator
    changes: tuple[Row, ...] = ()  # one volume each, under ground truth, R and R+S
    curves: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # stage -> step, name, value
    # "R" or "R+S, generator" -> "segmenter, task" -> step, name, value
    segmenter_curves: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)
    pairs: Mapping[str, str] = field(default_factory=dict)  # generator -> file of nearest pairs
    left_out: tuple[str, ...] = ()


NO_PICTURES = Pictures()


def upright(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A volume (R, A, S) as radiologists look at it: (S, A, R), superior and anterior first, the
    patient's right on the left."""
    return volume.T[::-1, ::-1, ::-1]
