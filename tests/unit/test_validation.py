"""Finished cells of one table that were made in different ways are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.plan import Cell
from bench.records import Record
from bench.store import Store
from bench.validation import mixtures

SCORES = [Cell("score", {"n": n}) for n in range(3)]
FIT = Cell("fit", {"n": 1})
ENVIRONMENT = {"torch": "2.13.0", "device": "cpu", "host": "here"}


def finished(out: Path, *environments: dict[str, str], extractors: str = "aaa") -> Store:
    """A score for each environment, measured on the extractor of its letter; and one fit."""
    store = Store(out)
    store.prepare_folder()
    used = [*zip(SCORES, environments, extractors, strict=True), (FIT, {"torch": "1.0"}, "")]
    for cell, environment, extractor in used:
        store.add(cell)
        with store.attempt(cell.key) as fresh:
            record = Record(metric="fid", value=1.0)
            if extractor:
                record |= Record(extractor=extractor, extractor_sha256=extractor * 64)
            facts = {"seconds": 1.0, "environment": {**ENVIRONMENT, **environment}}
            store.finish(cell.key, fresh, [record], facts)
    return store


@pytest.mark.parametrize(
    ("last", "extractors", "told"),
    [
        ({"host": "there"}, "aaa", []),
        ({"torch": "2.12.0"}, "aaa", ["mix torch: 2.13.0 (2 cells), 2.12.0 (1 cells)."]),
        ({"device": "H200"}, "aaa", ["mix device: cpu (2 cells), H200 (1 cells)."]),
        ({}, "aab", [f"mix extractor: a {'a' * 16} (2 cells), b {'b' * 16} (1 cells)."]),
    ],
)
def test_what_one_table_mixes_is_told_and_what_differs_between_tables_is_not(
    last: dict[str, str], extractors: str, told: list[str], tmp_path: Path
) -> None:
    store = finished(tmp_path, {}, {}, last, extractors=extractors)
    assert mixtures(store, [*SCORES, FIT]) == [f"The score cells {what}" for what in told]
