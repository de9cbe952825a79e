"""Preparation: orient, crop, resample, scale and split a source into volume sets."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bench.datasets.config import DataConfig
from bench.datasets.duplicates import SeenImages, refuse_twice, voxel_key
from bench.datasets.geometry import (
    filling_window,
    fixed_window,
    foreground_box,
    resample_image,
    resample_label,
)
from bench.datasets.source import RawCase, Source
from bench.datasets.split import guard_sets, split_cases
from bench.errors import InputError
from bench.volumes import VolumeSet, VolumeSetWriter

# Threads suffice: decompression and interpolation release the interpreter's lock. More than 8 would
# hold that many whole scans in memory and wait for the disk.
_WORKERS = min(8, os.cpu_count() or 1)


class PreparedCase(NamedTuple):
    """One case on the grid."""

    image: NDArray[np.float32]  # (D, H, W) in [0, 1]
    label: NDArray[np.uint8]  # (D, H, W)
    affine: NDArray[np.float64]  # (4, 4)
    source: dict[str, Any]
    key: str = ""  # of the image as its file has it; "" for images that are made, not read


def prepare(
    source: Source,
    config: DataConfig,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, VolumeSet]:
    """Write `folder`/train, /val, /test and, with a holdout, /held; return them by these names.

    Patients are split first (`DataConfig.split`, `seed`, `holdout`), then every case goes through
    `prepare_case`. The result depends on the source and the configuration alone. Cases are
    prepared on all cores and written in the order of their ids; a few are in memory at a time.

    Args:
        source: from `open_source(config)`.
        config: grid, spacing, margin, percentiles, split, seed, holdout.
        folder: made if missing; sets already in it are replaced.
        progress: called with (cases done, of how many) after every case.

    Raises:
        InputError: too few patients to split, a case that is not usable, or one image twice.
    """
    patients = {id: source.patient(id) for id in source.ids}
    parts = split_cases(patients, config.split, config.seed, config.holdout or 0)
    provenance = {
        "source": source.name,
        "source_fingerprint": source.fingerprint,
        "config": config.model_dump(mode="json"),
    }
    done, sets, seen = 0, {}, SeenImages()
    for part, ids in parts.items():
        writer = VolumeSetWriter(
            folder / part, config.grid, source.label_names, {**provenance, "part": part}
        )
        with writer:
            for id, case in zip(ids, _in_order(_case_of(source, config), ids), strict=True):
                if case.key:
                    refuse_twice(seen, id, case.key, source.name)
                known = {"patient": patients[id], **case.source}
                writer.append(id, case.image, case.label, case.affine, known)
                done += 1
                if progress is not None:
                    progress(done, len(patients))
        sets[part] = VolumeSet.open(folder / part)
    guard_sets(**sets)
    _warn_of_cut_foreground(sets, config)
    return sets


def prepare_case(raw: RawCase, config: DataConfig) -> PreparedCase:
    """One case oriented, cropped, resampled to the grid and scaled to [0, 1].

    1. Axes are permuted and flipped to the closest of right, anterior, superior; oblique volumes
       keep their own axes.
    2. The box of all labelled voxels is grown by `margin`. Without `spacing`, it is grown further
       to the grid's proportions with isotropic voxels as far as the image reaches; where it does
       not reach, that axis of the image is stretched over the grid instead of padded. With
       `spacing`, a grid of that voxel size is centred on the box, shifted to lie inside the
       image, and padded with 0 only where the image is smaller.
    3. The image is interpolated linearly after smoothing against aliasing; the label is the
       likeliest of the linearly interpolated masks.
    4. The `percentiles` of the image on the grid, padding excluded, become 0 and 1; values beyond
       are clipped.

    The affine is updated so that every voxel keeps its place in the world.
    """
    image, label, affine = to_ras(raw)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    box = foreground_box(label, config.margin)
    if config.spacing is None:
        window = filling_window(box, image.shape, spacing, config.grid)
    else:
        window = fixed_window(box, image.shape, spacing, config.grid, config.spacing)
    known = {
        **raw.source,
        "shape": list(raw.image.shape),
        "spacing_mm": np.linalg.norm(raw.affine[:3, :3], axis=0).round(6).tolist(),
        "axes": "".join(nib.aff2axcodes(raw.affine)),
        "foreground_inside": round(window.share_inside(label > 0), 4),
    }
    return PreparedCase(
        scale_to_unit(resample_image(image, window), config.percentiles),
        resample_label(label, window),
        affine @ window.affine,
        known,
    )


def scale_to_unit(
    image: NDArray[np.float32], percentiles: tuple[float, float]
) -> NDArray[np.float32]:
    """`image` with its percentiles at 0 and 1, clipped; NaN (padding) is left out and becomes 0."""
    low, high = np.nanpercentile(image, percentiles)
    if not high > low:
        raise InputError(
            f"the intensities at percentiles {percentiles} are both {low:g}; widen data.percentiles"
        )
    scaled = np.clip((image - low) / (high - low), 0, 1)
    unit: NDArray[np.float32] = np.nan_to_num(scaled, nan=0.0).astype(np.float32)
    return unit


def _warn_of_cut_foreground(sets: dict[str, VolumeSet], config: DataConfig) -> None:
    cases = [case for part in sets.values() for case in part.cases]
    inside = {case.id: case.source.get("foreground_inside", 1.0) for case in cases}
    cut = [id for id, share in inside.items() if share < 1]
    if cut:
        worst = min(cut, key=lambda id: float(inside[id]))
        warnings.warn(
            f"The grid {config.grid} at {config.spacing} mm cuts off labelled voxels of {len(cut)} "
            f"of {len(cases)} cases, most of {worst} ({inside[worst]:.0%} kept); set a larger "
            "data.grid or data.spacing.",
            stacklevel=3,
        )


def to_ras(raw: RawCase) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]:
    """Image, label and affine with the axes closest to right, anterior, superior."""
    turn = nib.io_orientation(raw.affine)
    affine = raw.affine @ nib.orientations.inv_ornt_aff(turn, raw.image.shape)
    image = nib.apply_orientation(raw.image, turn)
    return image, nib.apply_orientation(raw.label, turn), affine


def _case_of(source: Source, config: DataConfig) -> Callable[[str], PreparedCase]:
    def case(id: str) -> PreparedCase:
        raw = source.load(id)
        if source.on_grid:
            return PreparedCase(raw.image, raw.label, raw.affine, raw.source)
        return prepare_named(raw, config, id, source.name)._replace(key=voxel_key(raw.image))

    return case


def prepare_named(raw: RawCase, config: DataConfig, id: str, name: str) -> PreparedCase:
    """`prepare_case` of case `id` of the data set `name`, whose errors say so."""
    try:
        return prepare_case(raw, config)
    except InputError as error:
        raise InputError(f"Case {id} of {name} cannot be prepared: {error}.") from error


def _in_order(
    work: Callable[[str], PreparedCase], ids: Iterable[str], ahead: int = 2
) -> Iterator[PreparedCase]:
    """`work` of every id, in order, at most `ahead` results a thread waiting."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: deque[Future[PreparedCase]] = deque()
        try:
            for id in ids:
                waiting.append(pool.submit(work, id))
                if len(waiting) > ahead * _WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
