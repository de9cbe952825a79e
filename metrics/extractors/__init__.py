"""Feature extractors: what a Fréchet distance between volumes is measured on."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Extractor(Protocol):
    """Maps volumes to feature vectors, each volume independently of its batch.

    Attributes:
        name: printed wherever the features' numbers appear; scores of different names (or weights)
            are never compared.
        sha256: of the file of weights; "" for an extractor without weights.
        dim: d, the number of features of a volume.
    """

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Features ``(B, d)`` of volumes ``(B, D, H, W)``, floats in [0, 1]."""
        ...
