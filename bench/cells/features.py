"""Features of volume sets, each volume's kept by its content."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cells.context import Context
from bench.cells.feature_cache import FeatureCache, Features
from bench.cells.segment import first_cases
from bench.extractor import build_extractor
from bench.plan import Cell, ExtractorFacts
from bench.records import Record
from bench.rows import write_rows
from bench.store import Store
from bench.volumes import AXES, VolumeSet
from metrics.extractors import Extractor
from metrics.fid import plane_features

CHUNK = 8
"""Volumes in memory at once."""

VOLUME = "volume"
"""The only plane of task features."""

DETERMINANTS = ("extractor", "plugin", "version", "preprocess", "protocol")
"""What of a cell's specification changes the features of a volume, beside the weights."""

Extract = Callable[[NDArray[Any]], dict[str, NDArray[np.float64]]]
"""From volumes (B, D, H, W) to arrays whose first axis is the volumes', by plane."""


def run(context: Context) -> list[Record]:
    """Leaves ``features.npz``, float64: per plane (n, d), or (n, slices, d) by the protocol 2.5d.

    n counts volumes. Task features belong to no plane: their only array, (n, d), is "volume".
    Features that an earlier cell of this store extracted from the same voxels are read, not made.
    """
    spec = context.spec
    volumes = _volumes(context, spec["part"], int(spec["count"]))
    sha256 = weights_sha256(context.store, context.cell)
    determinants = {key: spec[key] for key in DETERMINANTS}
    cache = FeatureCache(context.store.out / "features", {**determinants, "sha256": sha256})
    rows = _rows(context, volumes, cache, lambda: _extract(context, volumes))
    write_rows(context.artefacts / "features.npz", len(volumes), rows)
    return []


def _rows(
    context: Context, volumes: VolumeSet, cache: FeatureCache, load: Callable[[], Extract]
) -> Iterator[Features]:
    """Features of every volume, in order; the extractor is loaded if any is not in the cache.

    Equal volumes have one key, and are extracted once. Rows wait in the cache for their turn; in
    memory only those that it could not keep.
    """
    keys = [cache.key(stored_image(volumes, i)) for i in range(len(volumes))]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    missing = sorted(i for key, i in first.items() if not cache.path(key).is_file())
    extractor = functools.cache(load)

    def extracted(indices: Sequence[int]) -> dict[str, Features]:
        planes = extractor()(volumes.images(indices))
        rows = {
            keys[i]: {plane: values[position] for plane, values in planes.items()}
            for position, i in enumerate(indices)
        }
        for key, row in rows.items():
            cache.write(key, row)
        return rows

    kept: dict[str, Features] = {}
    for start in range(0, len(missing), CHUNK):
        rows = extracted(missing[start : start + CHUNK])
        kept |= {key: row for key, row in rows.items() if not cache.path(key).is_file()}
        context.tick(len(volumes) - len(missing) + start + len(rows), len(volumes))
    for i, key in enumerate(keys):
        # None is a file that is damaged, or gone by now.
        yield kept.get(key) or cache.read(key) or extracted([i])[key]


def stored_image(volumes: VolumeSet, index: int) -> NDArray[Any]:
    """The voxels (D, H, W) of an image as they are stored, without its label."""
    path, row = volumes.rows[index]
    images: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    image: NDArray[Any] = images[row]
    return image


def make_extractor(context: Context) -> Extractor:
    """The extractor that was decided on before the run."""
    spec = context.spec
    facts = ExtractorFacts(
        name=spec["extractor"],
        version=spec["version"],
        preprocess=spec["preprocess"],
        sha256=spec["sha256"],
        path=context.cell.extra["weights"],
        protocol=spec["protocol"],
        plugin=spec["plugin"],
    )
    extractor: Extractor = build_extractor(facts, context.device.torch_device())
    return extractor


def weights_sha256(store: Store, features: Cell) -> str:
    """sha256 of the weights of a features cell's extractor, "" where it has none.

    The labeller's are known only once it is fitted; the others' stand in the cell.
    """
    if "labeller" not in features.needs:
        return str(features.spec["sha256"])
    result = store.result(features.needs["labeller"]) or {}
    return str(result["artefacts"]["state.pt"]["sha256"])


def _extract(context: Context, volumes: VolumeSet) -> Extract:
    if "labeller" in context.cell.needs:  # task features alone need a fitted segmenter
        from bench.cells.labeller import load_labeller
        from metrics.extractors.task import TaskFeatures

        network, _ = load_labeller(context, volumes, context.run(volumes))
        sha256 = weights_sha256(context.store, context.cell)
        task = TaskFeatures(network, sha256, context.device.torch_device())
        return lambda images: {VOLUME: task(images)}
    extractor = make_extractor(context)
    return lambda images: plane_features(images, extractor, AXES)


def _volumes(context: Context, part: str, count: int) -> VolumeSet:
    if part == "synthetic":
        return VolumeSet.open(context.needed("synthetic") / "synthetic").subset(range(count))
    volumes = context.volumes(part)
    return first_cases(volumes, count) if part == "train" else volumes.subset(range(count))
