"""The page of the generators says what the presets say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from bench.registry import GENERATORS

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hyperparameters", DOCS / "hyperparameters.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_as_the_presets_are(script: ModuleType) -> None:
    page = (DOCS / "generators.md").read_text(encoding="utf-8")
    assert script.tables(page) == page, "run python docs/hyperparameters.py"


def test_every_generator_has_its_table() -> None:
    page = (DOCS / "generators.md").read_text(encoding="utf-8")
    own = [name for name in GENERATORS.names() if "voxelbench" in GENERATORS.origin(name).source]
    assert len(own) >= 5
    for name in own:
        assert f"<!-- hyper-parameters: {name} -->\n| key | quick | small | paper |" in page
