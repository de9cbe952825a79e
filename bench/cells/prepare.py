"""Prepare the data: orient, crop, resample, scale, split; once for all that follows."""

from __future__ import annotations

from bench.cells.context import Context
from bench.datasets.config import DataConfig
from bench.datasets.prepare import prepare
from bench.datasets.source import open_source
from bench.records import Record


def run(context: Context) -> list[Record]:
    """Leaves the volume sets ``train``, ``val`` and ``test``; records their sizes."""
    config = DataConfig.model_validate(context.cell.extra["data"])
    sets = prepare(open_source(config), config, context.artefacts, context.tick)
    return [Record(metric=f"n_{part}", value=len(volumes)) for part, volumes in sets.items()]
