"""The page of the plug-ins has every requirement that `bench check` checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from conftest import ROOT

from bench.contract.extractors import EXTRACTOR
from bench.contract.generators import GENERATOR
from bench.contract.segmenters import SEGMENTER

PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "requirements"),
    [("generator", GENERATOR), ("segmenter", SEGMENTER), ("extractor", EXTRACTOR)],
)
def test_the_page_lists_the_requirements(kind: str, requirements: Sequence[Any]) -> None:
    rows = [f"| {r.name} | {r.expected} |" for r in requirements]
    table = "\n".join(
        [f"### Of a {kind}", "", "| requirement | what is expected |", "| --- | --- |"]
    )
    assert "\n".join([table, *rows, ""]).replace("Of a e", "Of an e") in PAGE
