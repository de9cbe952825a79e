"""When a fit is given up: losses that are not finite, and losses that explode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

WINDOW = 20
"""Values of a loss whose median is its level."""

SMALL = 1e-3
"""A level below this counts as this: a loss that begins near nothing may well grow."""


class Diverged(RuntimeError):
    """A loss, a gradient or a weight is not finite, or a loss exploded."""


@dataclass
class LossWatch:
    """Tells an exploding loss from a spike, and from the tides of a GAN's.

    A loss has exploded where the median of its last 20 magnitudes is `factor` times the median of
    its first 20. A median does not see a few bad batches. The comparison is with the beginning, of
    an untrained network, and not with the best, because an adversary's loss may go near zero and
    come back.
    """

    factor: float  # 0 is off
    first: dict[str, float] = field(default_factory=dict)  # level of each loss when it began
    recent: dict[str, list[float]] = field(default_factory=dict)

    def see(self, name: str, value: float, step: int) -> None:
        """Note a loss of `step`; Diverged if it is not finite or has exploded."""
        require_finite(value, f"loss {name!r}", step)
        values = self.recent.setdefault(name, [])
        values.append(abs(value))
        del values[:-WINDOW]
        if len(values) < WINDOW:
            return
        level = median(values)
        self.first.setdefault(name, max(level, SMALL))
        if level > self._limit(name):
            raise Diverged(
                f"The loss {name!r} has exploded at step {step}: the median of its last {WINDOW} "
                f"values is {level:.3g}, of its first {WINDOW} it was {self.first[name]:.3g}, and "
                f"explode_factor is {self.factor:g}; lower the learning rate"
            )

    def high(self) -> bool:
        """Whether some loss was above its limit at the last look, so that its weights are odd."""
        return any(values[-1] > self._limit(name) for name, values in self.recent.items())

    def _limit(self, name: str) -> float:
        return self.factor * self.first[name] if self.factor and name in self.first else math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "recent": self.recent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.first, self.recent = dict(state["first"]), dict(state["recent"])


def require_finite(value: float, what: str, step: int) -> None:
    """Diverged unless `value` is a number."""
    if not math.isfinite(value):
        raise Diverged(f"The {what} is {value} at step {step}; lower the learning rate")
