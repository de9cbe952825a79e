"""The check that networks with strides share: a grid whose sides divide."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import InputError


def require_divisible(size: Sequence[int], divisor: int, smallest: int, who: str) -> None:
    """InputError unless every side of `size` is a multiple of `divisor` and at least `smallest`."""
    if any(side % divisor or side < smallest for side in size):
        grid = "x".join(map(str, size))
        raise InputError(
            f"{who} cannot take the grid {grid}: every side must be a multiple of {divisor} and at "
            f"least {smallest}; change data.grid."
        )
