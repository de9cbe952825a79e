"""Feature extractors: what a Fréchet distance between volumes is measured on.

An extractor is a class, found by the entry-point group ``bench.extractors`` or by ``--plugin FILE``
with the decorator ``bench.register_extractor``::

    from bench import register_extractor

    @register_extractor("histogram")
    class Histogram:
        \"\"\"Shares of sixteen intensity ranges.\"\"\"      # the line that bench list shows

        version = "1"                  # raise it with every change of the features
        protocol = "reorient"          # or "2.5d": what it is called with
        needs_weights = False          # True: scoring.weights names the file
        preprocessings = ()            # names of what it can be fed; the first is the default
        sha256 = ""                    # of the file of weights; set in __init__ where there is one
        dim = 16

        def __init__(self, weights, device, preprocess):  # Path or None, "cuda:0", a name or ""
            ...

        def __call__(self, volumes):   # (B, D, H, W) in [0, 1] -> (B, 16)
            return np.stack([np.histogram(v, 16, (0, 1))[0] / v.size for v in volumes])

- ``protocol = "reorient"``: called with volumes ``(B, D, H, W)`` whose first spatial axis is the
  plane's normal; ``"2.5d"``: called with the slices ``(B, H, W)`` of one volume along the plane's
  normal, B being the number of slices.
- The features of a volume (or slice) depend on no other one: neither batch size nor order changes
  them by more than rounding (1e-5 of their size).
- A ValueError in one sentence refuses weights or a grid that the extractor cannot take.
- A class may have a static method ``find_weights(explicit, *, allow_download)`` that returns the
  path of its weights or None where the user gave no file.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

PlaneProtocol = Literal["reorient", "2.5d"]
PROTOCOLS: tuple[PlaneProtocol, ...] = ("reorient", "2.5d")

# Features of the run's own segmenter, `metrics.extractors.task`. They stand here, where no torch is
# imported, because whoever plans a run needs them too: the version is part of what is looked up.
TASK_NAME = "task"
TASK_VERSION = "1"
"""Raised with every change of the task features."""
TASK_PROTOCOL = "volume"


class Extractor(Protocol):
    """Maps volumes or slices to feature vectors, each independently of its batch.

    Attributes:
        name: printed wherever the features' numbers appear; scores of different names (or weights)
            are never compared.
        sha256: of the file of weights; "" for an extractor without weights.
        dim: d, the number of features of a volume or slice.
        protocol: "reorient" for volumes, "2.5d" for slices.
    """

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def protocol(self) -> str: ...

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Features ``(B, d)`` of volumes ``(B, D, H, W)`` or slices ``(B, H, W)`` in [0, 1]."""
        ...
