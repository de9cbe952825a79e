"""One image under two ids: it could be trained on under one and tested under the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError


def voxel_key(image: NDArray[np.float32]) -> str:
    """A key that images share if they hold the same values, whatever their file and orientation.

    The key is the sorted shape and the sum of a 64-bit hash of every voxel (the finaliser of
    Steele et al., Fast splittable pseudorandom number generators, OOPSLA 2014), so that neither
    compression nor header nor the order of axes matters: a data set that was converted from another
    often differs from it in all three.
    """
    total = 0
    # A plane at a time keeps the 64-bit copies small; along the slowest axis they are contiguous.
    slowest = int(np.argmax(np.abs(image.strides)))
    for plane in np.moveaxis(image, slowest, 0):
        bits = (plane.astype(np.float32) + 0.0).view(np.uint32).astype(np.uint64)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
        total = (total + int(bits.sum(dtype=np.uint64))) % 2**64
    return "x".join(map(str, sorted(image.shape))) + f"-{total:016x}"


class SeenImages:
    """Images by their keys, to find the ones that come twice."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def again(self, id: str, key: str) -> str | None:
        """The id under which this image came before, or None; it is remembered from now on."""
        first = self._first.setdefault(key, id)
        return None if first == id else first


def twice(first: str, id: str, name: str) -> str:
    """The sentence about one image under two ids."""
    return (
        f"The images of cases {first} and {id} of {name} hold the same voxels; remove one of them, "
        "or no score would mean anything."
    )


def refuse_twice(seen: SeenImages, id: str, key: str, name: str) -> None:
    """InputError if the image came before."""
    first = seen.again(id, key)
    if first is not None:
        raise InputError(twice(first, id, name))
