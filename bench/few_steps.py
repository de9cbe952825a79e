"""Configurations as trees of plain values: their trainings and samplings, and shortening them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LENIENT: Mapping[str, Any] = {
    "start": 0,  # of a part of the loss, in steps
    "required_dice": 0.0,
    "component_tolerance": None,
    "max_draws": 1,
}
"""Values, by name, with which all of a fit is at work from its first step and nothing is asked of
what comes out of it: a network that learnt nothing meets no demand."""


def brief(values: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """A configuration whose fits take so many steps, with the `LENIENT` values."""

    def change(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            inner = {key: change(key, item) for key, item in value.items()}
            return {**inner, "steps": steps} if name == "training" and "steps" in inner else inner
        return LENIENT.get(name, value)

    return {key: change(key, value) for key, value in values.items()}


def parts(values: Mapping[str, Any], suffix: str, path: str = "") -> dict[str, Mapping[str, Any]]:
    """The parts of a configuration that have steps and a name with this ending, by their path."""
    found: dict[str, Mapping[str, Any]] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            own = f"{path}.{key}" if path else key
            found |= {own: value} if key.endswith(suffix) and "steps" in value else {}
            found |= parts(value, suffix, own)
    return found


def changed(values: Mapping[str, Any], path: str, key: str, value: Any) -> dict[str, Any]:
    """The configuration with another value of `key` in the part at `path`."""
    name, _, rest = path.partition(".")
    inner = changed(values[name], rest, key, value) if rest else {**values[name], key: value}
    return {**values, name: inner}


def largest_batch(found: Mapping[str, Mapping[str, Any]]) -> int:
    """Of several parts; 1 where none has a batch size."""
    return max((int(part.get("batch_size", 1)) for part in found.values()), default=1)


def with_batch(values: Mapping[str, Any], suffix: str, batch: int) -> dict[str, Any]:
    """The configuration with no larger batches than this in the parts that `suffix` finds."""
    limited = dict(values)
    for path, part in parts(values, suffix).items():
        if part.get("batch_size", 1) > batch:
            limited = changed(limited, path, "batch_size", batch)
    return limited
