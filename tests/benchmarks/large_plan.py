"""A plan of over 40 000 cells, and a store in which all of them are done."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from bench.config import RunConfig, plugin_config
from bench.datasets.tasks import default_tasks
from bench.generator import Generator, GeneratorConfig, register_generator
from bench.harness import Plan
from bench.plan import Cell, DataFacts, ExtractorFacts, make_plan
from bench.records import Record
from bench.registry import GENERATORS, SEGMENTERS
from bench.sealed import write_sealed
from bench.segmenter import SegmenterConfig, register_segmenter
from bench.store import RESULT_VERSION, Store

LABELS = {0: "background", 1: "liver", 2: "portal vein", 3: "hepatic vein", 4: "HCC"}
DATA = DataFacts("toy", "f" * 64, LABELS, tuple(default_tasks(LABELS).values()), 60, 8, 20)
N_GENERATORS, N_SEGMENTERS, SEEDS = 100, 20, (0, 1, 2, 3, 4)
CASES = 5  # records of a segmentation, in place of 20


class WideConfig(GeneratorConfig):
    width: int = 4


def register() -> None:
    """Generators and segmenters that can be planned and nothing else."""

    class Toy(Generator):
        Config = WideConfig
        labels = "joint"

        def fit(self, train: Any, val: Any, run: Any) -> dict[str, Any]:
            return {}

        def sample(self, indices: Sequence[int], run: Any) -> Iterator[Any]:
            raise AssertionError("a plan samples nothing")

    def build(*_: object) -> Any:
        raise AssertionError("a plan builds nothing")

    for n in range(N_GENERATORS):
        register_generator(f"toy-{n:03d}")(type("Toy", (Toy,), {"__doc__": "A toy."}))
    for n in range(N_SEGMENTERS):
        register_segmenter(f"net-{n:02d}", SegmenterConfig)(_named(build))


def _named(build: Callable[..., Any]) -> Callable[..., Any]:
    def one(*arguments: object) -> Any:
        """A toy."""
        return build(*arguments)

    return one


def configuration() -> RunConfig:
    generators = [f"toy-{n:03d}" for n in range(N_GENERATORS)]
    segmenters = [f"net-{n:02d}" for n in range(N_SEGMENTERS)]
    return RunConfig.model_validate(
        {
            "preset": "quick",
            "seeds": SEEDS,
            "labeller": {"segmenter": "unet"},
            "generators": {n: plugin_config(GENERATORS, n, {}, "generators") for n in generators},
            "segmenters": {n: plugin_config(SEGMENTERS, n, {}, "segmenters") for n in segmenters},
        }
    )


def plan() -> Plan:
    """The cells, in order."""
    config, extractor = configuration(), ExtractorFacts("texture")
    return Plan(config, DATA, extractor, tuple(make_plan(config, DATA, extractor)))


def records_of(cell: Cell) -> list[Record]:
    """What a segmentation leaves, in little."""
    if cell.kind != "segment":
        return [Record(metric="seconds", value=1.0)]
    chance = random.Random(cell.key)  # gains of their own, as true runs have
    return [
        Record(metric="dice", value=chance.uniform(0.4, 0.6), case=f"case-{n}")
        for n in range(CASES)
    ]


def fill(store: Store, cells: Sequence[Cell]) -> None:
    """Every cell done, without waiting for the disk."""
    facts = {"seconds": 1.0, "environment": {"device": "cpu", "torch": "2", "threads": "1"}}
    store.prepare_folder()
    with mock.patch.object(os, "fsync", return_value=None):
        for cell in cells:
            folder: Path = store.folder(cell.key)
            folder.mkdir()
            write_sealed(folder / "cell.json", cell.to_json())
            result = {
                "version": RESULT_VERSION,
                "key": cell.key,
                "finished": "2026-01-01T00:00:00+00:00",
                **facts,
                "artefacts": {},
                "records": records_of(cell),
            }
            write_sealed(folder / "result.json", result)
