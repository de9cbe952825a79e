"""From a measure to records, whether it can be computed or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bench.records import Record


def measured(
    metrics: Sequence[str], measure: Callable[[], Iterable[float]], common: Record | None = None
) -> list[Record]:
    """One record for each of `metrics`, in the order in which `measure()` gives their values.

    A measure that refuses its input (ValueError) leaves records of nan with its reason: the cell
    goes on, and the tables show a hole and why. Any other error is the cell's. `common` is what
    the records share.
    """
    shared = common or Record()
    try:
        values = [float(value) for value in measure()]
    except ValueError as error:
        hole = Record(value=float("nan"), reason=str(error))
        return [Record(**{**shared, **hole, "metric": metric}) for metric in metrics]
    return [
        Record(**{**shared, "metric": metric, "value": value})
        for metric, value in zip(metrics, values, strict=True)
    ]
