"""From a measure to records, whether it can be computed or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from bench.records import Record

UNDEFINED = "The measure is not defined for these volumes."


def measured(
    metrics: Sequence[str],
    measure: Callable[[], Iterable[float]],
    common: Record | None = None,
    undefined: str = UNDEFINED,
) -> list[Record]:
    """One record for each of `metrics`, in the order in which `measure()` gives their values.

    A measure that refuses its input (ValueError) leaves records of nan with its reason: the cell
    goes on, and the tables show a hole and why. Any other error is the cell's. A value that is not
    finite has the reason `undefined`. `common` is what the records share.
    """
    shared = common or Record()
    try:
        values = [float(value) for value in measure()]
    except ValueError as error:
        hole = Record(value=float("nan"), reason=str(error))
        return [Record(**{**shared, **hole, "metric": metric}) for metric in metrics]
    return [
        Record(**{**shared, "metric": metric, **_value(value, undefined)})
        for metric, value in zip(metrics, values, strict=True)
    ]


def _value(value: float, undefined: str) -> Record:
    if math.isfinite(value):
        return Record(value=value)
    return Record(value=float("nan"), reason=undefined)
