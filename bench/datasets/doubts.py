"""What a run would take without a word, and which would mislead it: the warnings of a check."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bench.datasets.faults import AFFINE_TOLERANCE
from bench.datasets.scan import Fault, Scan, apart

_SKEW = 0.01  # cosine between two axes that should be perpendicular
_SIZE_MM = (10.0, 2000.0)  # of a scan's sides
_FEW_VOXELS = 10
_SPACING_FACTOR = 3.0  # from the median of the data set
_BRIGHTNESS = 0.25  # from the median of the data set, as a fraction of the image's voxels
_MANY = 5  # cases from which on an outlier can be told


@dataclass(frozen=True)
class Measured:
    """What is remembered of a case: enough to compare it with the others."""

    id: str
    shape: tuple[int, ...]
    spacing: tuple[float, float, float]  # mm, along right, anterior, superior
    axes: str  # e.g. "LAS"
    voxels: Mapping[str, int]  # label name -> count
    brightness: Mapping[str, float]
    """Label name -> fraction of the image's voxels that are darker than the label's mean: it
    compares cases whatever their units."""
    mean: Mapping[str, float]  # label name -> mean intensity
    label: str  # sha256 of the label map
    vanished: tuple[str, ...] = ()  # labels that the run's grid is too coarse for


def measure(id: str, image: Scan, label: NDArray[np.uint8], names: Mapping[int, str]) -> Measured:
    """Measure a case; `label` has the merged ids that `names` names."""
    counts, sums = np.zeros(256, dtype=np.int64), np.zeros(256)
    for grey, values in zip(image.voxels, label, strict=True):  # bincount makes 64-bit copies
        counts += np.bincount(values.ravel(), minlength=256)
        sums += np.bincount(values.ravel(), weights=grey.ravel(), minlength=256)
    shown = {v: name for v, name in names.items() if v != 0 and counts[v]}
    mean = {name: float(sums[v] / counts[v]) for v, name in shown.items()}
    turn = nib.io_orientation(image.affine)
    x, y, z = image.spacing[np.argsort(turn[:, 0])].tolist()
    return Measured(
        id=id,
        shape=image.voxels.shape,
        spacing=(x, y, z),
        axes="".join(nib.aff2axcodes(image.affine)),
        voxels={name: int(counts[v]) for v, name in names.items() if v != 0},
        brightness={
            name: float(np.count_nonzero(image.voxels < value) / image.voxels.size)
            for name, value in mean.items()
        },
        mean=mean,
        label=hashlib.sha256(np.ascontiguousarray(label).tobytes()).hexdigest(),
    )


def scan_doubts(scan: Scan) -> Iterator[Fault]:
    """What makes a scan's place doubtful, though it can be read."""
    if not scan.forms:
        yield Fault(
            "orientation",
            f"{scan.path} declares no orientation (sform and qform codes are 0), so left and right "
            "are a guess; write its affine.",
        )
    elif np.allclose(scan.affine, np.eye(4)):
        yield Fault(
            "affine",
            f"{scan.path} has the identity as its affine, as files have whose voxel size and "
            "orientation were lost; compare it with its source, or trust 1 mm.",
        )
    if len(scan.forms) == 2:
        millimetres, voxels = apart(scan.voxels.shape, *scan.forms.values())
        if voxels > AFFINE_TOLERANCE:
            yield Fault(
                "affine",
                f"{scan.path} has an sform and a qform that lie up to {millimetres:.3g} mm apart; "
                "the sform is taken here, other readers may take the qform: write one affine to "
                "both.",
            )
    directions = scan.affine[:3, :3] / scan.spacing
    skew = float(np.abs(np.triu(directions.T @ directions, 1)).max())
    if skew > _SKEW:
        yield Fault(
            "affine",
            f"{scan.path} has axes that are {np.degrees(np.arccos(skew)):.1f} degrees apart, not "
            "90; they are taken as perpendicular here, and SimpleITK refuses them: resample it.",
        )
    sides = scan.spacing * scan.voxels.shape
    if sides.min() < _SIZE_MM[0] or sides.max() > _SIZE_MM[1]:
        yield Fault(
            "geometry",
            f"{scan.path} is {' x '.join(f'{side:.4g}' for side in sides)} mm large; correct its "
            "voxel size if no such scan exists.",
        )


def case_doubts(case: Measured, absent: Iterable[str] = ()) -> Iterator[Fault]:
    """What is odd about a case on its own; `absent` are labels that it has no file of."""
    for name in absent:
        yield Fault(
            "labels",
            f"There is no file of {name!r}, which counts as absent; make sure that the case has "
            "none, not that its file has another name.",
        )
    for name, count in case.voxels.items():
        if 0 < count < _FEW_VOXELS:
            yield Fault(
                "labels",
                f"{name!r} has {count} voxels, as stray clicks have; look at it with bench data "
                "show.",
            )


def set_doubts(
    cases: Sequence[Measured], names: Mapping[int, str], grid: tuple[int, int, int]
) -> Iterator[tuple[str, Fault]]:
    """(case id or "", doubt) of what only shows when cases are compared."""
    for name in (name for value, name in names.items() if value != 0):
        yield from _rare_label(cases, name, grid)
        yield from _misplaced_label(cases, name)
    yield from _odd_spacing(cases)
    yield from _odd_axes(cases)


def _rare_label(
    cases: Sequence[Measured], name: str, grid: tuple[int, int, int]
) -> Iterator[tuple[str, Fault]]:
    having = [case for case in cases if case.voxels.get(name)]
    if len(having) < 3 <= len(cases):
        yield (
            "",
            Fault(
                "labels",
                f"{name!r} is in {len(having)} of {len(cases)} cases, too few for each of train, "
                "val and test to have one; leave it out of data.labels or data.tasks, or mend its "
                "name.",
            ),
        )
    gone = [case.id for case in having if name in case.vanished]
    if gone:
        yield (
            "",
            Fault(
                "labels",
                f"{name!r} vanishes on the grid {grid} in {len(gone)} of the {len(having)} cases "
                f"that have it, such as {gone[0]}; set a larger data.grid.",
            ),
        )


def _misplaced_label(cases: Sequence[Measured], name: str) -> Iterator[tuple[str, Fault]]:
    known = {case.id: case for case in cases if name in case.brightness}
    if len(known) < _MANY:
        return
    values = np.array([case.brightness[name] for case in known.values()])
    middle = float(np.median(values))
    usual = 6 * float(np.median(np.abs(values - middle)))
    for id, case in known.items():
        if abs(case.brightness[name] - middle) > max(_BRIGHTNESS, usual):
            yield (
                id,
                Fault(
                    "labels",
                    f"{name!r} has the mean intensity {case.mean[name]:.4g}, brighter than "
                    f"{case.brightness[name]:.0%} of the image, against {middle:.0%} in the middle "
                    "of the data set; see with bench data show whether the label lies where it "
                    "should.",
                ),
            )


def _odd_spacing(cases: Sequence[Measured]) -> Iterator[tuple[str, Fault]]:
    if len(cases) < _MANY:
        return
    spacing = np.array([case.spacing for case in cases])
    ratio = spacing / np.median(spacing, axis=0)
    for case, row in zip(cases, ratio, strict=True):
        if row.max() > _SPACING_FACTOR or row.min() < 1 / _SPACING_FACTOR:
            yield (
                case.id,
                Fault(
                    "geometry",
                    f"The voxel size is {_millimetres(case.spacing)}, in the middle of the data "
                    f"set {_millimetres(np.median(spacing, axis=0))}; compare it with its source.",
                ),
            )


def _odd_axes(cases: Sequence[Measured]) -> Iterator[tuple[str, Fault]]:
    counts = Counter(case.axes for case in cases)
    if len(counts) < 2:
        return
    usual, count = counts.most_common(1)[0]
    for case in cases:
        if case.axes != usual:
            yield (
                case.id,
                Fault(
                    "orientation",
                    f"The axes are {case.axes}, in {count} of {len(cases)} cases {usual}; the "
                    "header decides what is left: see with bench data show whether it is right.",
                ),
            )


def split_doubts(
    cases: Sequence[Measured],
    patients: Mapping[str, str],
    side: Mapping[str, str],
    rule: str | None,
) -> Iterator[tuple[str, Fault]]:
    """Cases that look like one patient's but count as two.

    Args:
        cases: measured.
        patients: case id -> patient id.
        side: case id -> the part of the split that it is in.
        rule: `DataConfig.patients`.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.id in patients:  # else its own error has told
            alike[case.label].append(case.id)
    for ids in alike.values():
        if len({patients[id] for id in ids}) > 1:
            yield ids[0], _one_patient(ids, side, "have the same label map")
    if rule is not None:
        return
    stems: dict[str, list[str]] = defaultdict(list)
    for id in patients:
        stem = re.sub(r"[-_.][^-_.]*$", "", id)
        if stem != id and re.search(r"\d", stem):
            stems[stem].append(id)
    # One stem for all is a data set's name, as in msd04_001.
    if len({re.sub(r"[-_.][^-_.]*$", "", id) for id in patients}) > 1:
        for stem, ids in stems.items():
            if len(ids) > 1:
                yield ids[0], _one_patient(ids, side, f"all begin with {stem!r}")


def _one_patient(ids: Sequence[str], side: Mapping[str, str], why: str) -> Fault:
    parts = sorted({side[id] for id in ids if id in side})
    where = f"they are in {' and '.join(parts)}" if parts else "no split was made"
    shown = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    return Fault(
        "split",
        f"The cases {shown} {why}, so they may be of one patient; {where}: set data.patients so "
        "that one patient's cases stay together.",
    )


def _millimetres(spacing: Iterable[float]) -> str:
    return " x ".join(f"{mm:.3g}" for mm in spacing) + " mm"
