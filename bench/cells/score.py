"""Features of volume sets, and the FID per plane between two of them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from bench.cells.context import Context
from bench.cells.segment import first_cases
from bench.records import Record
from bench.volumes import AXES, VolumeSet
from metrics.extractors import Extractor
from metrics.fid import fid_per_plane, plane_features

CHUNK = 8
"""Volumes in memory at once."""


def features(context: Context) -> list[Record]:
    """Leaves ``features.npz``: per plane (n, d) float64, of so many volumes of a set."""
    spec = context.spec
    extractor = make_extractor(context)
    volumes = _volumes(context, spec["part"], int(spec["count"]))
    chunks = []
    for start in range(0, len(volumes), CHUNK):
        rows = range(start, min(start + CHUNK, len(volumes)))
        chunks.append(plane_features(volumes.images(rows), extractor, AXES))
        context.tick(rows[-1] + 1, len(volumes))
    planes = {plane: np.concatenate([chunk[plane] for chunk in chunks]) for plane in chunks[0]}
    np.savez(context.artefacts / "features.npz", **cast(dict[str, Any], planes))
    return []


def run(context: Context) -> list[Record]:
    """Records the FID of each plane and their average."""
    real = np.load(context.needed("real") / "features.npz")
    synthetic = np.load(context.needed("synthetic") / "features.npz")
    spec = context.store.cell(context.cell.needs["synthetic"]).spec
    return [
        Record(
            metric="fid",
            plane=plane,
            value=value,
            n_real=len(real[real.files[0]]),
            n_synthetic=len(synthetic[synthetic.files[0]]),
            extractor=spec["extractor"],
            extractor_sha256=spec["sha256"],
            protocol=spec["protocol"],
        )
        for plane, value in fid_per_plane(real, synthetic).items()
    ]


def make_extractor(context: Context) -> Extractor:
    """The extractor that was decided on before the run."""
    spec = context.spec
    if spec["extractor"] == "texture":
        from metrics.extractors.texture import TextureExtractor

        return TextureExtractor(device=context.device.torch_device())
    from metrics.extractors.medicalnet import MedicalNetExtractor

    return MedicalNetExtractor(
        context.cell.extra["weights"],
        device=context.device.torch_device(),
        preprocess=spec["preprocess"],
        sha256=spec["sha256"],
    )


def _volumes(context: Context, part: str, count: int) -> VolumeSet:
    if part == "synthetic":
        return VolumeSet.open(context.needed("synthetic") / "synthetic").subset(range(count))
    volumes = context.volumes(part)
    return first_cases(volumes, count) if part == "train" else volumes.subset(range(count))
