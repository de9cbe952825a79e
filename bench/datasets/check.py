"""Every problem of a data set in one pass: what a run would refuse, and what would mislead it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.datasets.config import DataConfig
from bench.datasets.decathlon import DecathlonSource, case_id
from bench.datasets.doubts import (
    Measured,
    case_doubts,
    measure,
    scan_doubts,
    set_doubts,
    split_doubts,
)
from bench.datasets.duplicates import SeenImages, twice, voxel_key
from bench.datasets.folder import FolderSource
from bench.datasets.nifti import SUFFIXES
from bench.datasets.prepare import prepare_named
from bench.datasets.scan import Fault
from bench.datasets.source import RawCase, open_folder
from bench.datasets.split import split_cases
from bench.datasets.tasks import tasks_of
from bench.errors import InputError

T = TypeVar("T")
Severity = Literal["error", "warning"]


_SMALL_TEST = (
    "The test split has one case, and an FID needs at least 2: a run with generators is refused; "
    "give more cases or a larger part of data.split."
)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set."""

    severity: Severity
    """"error": a run refuses it; "warning": a run takes it and may mislead."""
    case: str  # id, or "" for the data set as a whole
    check: str  # listing, paths, files, geometry, orientation, affine, intensities, labels, ...
    text: str  # one sentence: which file, which value, what to do


@dataclass
class Checked:
    """What a check found."""

    name: str
    cases: int = 0
    problems: list[Problem] = field(default_factory=list)

    def error(self, case: str, check: str, text: str) -> None:
        self.problems.append(Problem("error", case, check, text))

    def warn(self, case: str, fault: Fault) -> None:
        self.problems.append(Problem("warning", case, fault.check, fault.text))

    def count(self, severity: Severity) -> int:
        return sum(problem.severity == severity for problem in self.problems)


def check(
    config: DataConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
    others: SeenImages | None = None,
) -> Checked:
    """Read every case once, one in memory at a time, and tell all that is wrong.

    Args:
        config: as a run would have it; all cases are checked, whatever `cases` says.
        progress: called with (cases done, of how many) after every case.
        others: images of data sets that were checked before, to find the ones they share.
    """
    config = config.model_copy(update={"cases": None})
    found = Checked(config.name or config.source)
    try:
        source = open_folder(config, strict=False)
    except InputError as error:
        found.error("", "listing", str(error))
        return found
    found.name = source.name
    for id, fault in source.listing_faults:
        found.error(id, fault.check, fault.text)
    for fault in _listing_doubts(source):
        found.warn("", fault)
    _check_tasks(source, config, found)
    patients, side = _check_split(source, config, found)
    seen, measured = (SeenImages(), others or SeenImages()), []
    for done, id in enumerate(source.ids, start=1):
        case = _check_case(source, config, id, found, seen)
        if case is not None:
            measured.append(case)
        progress(done, len(source.ids))
    found.cases = len(source.ids)
    for id, fault in set_doubts(measured, source.label_names, config.grid):
        found.warn(id, fault)
    for id, fault in split_doubts(measured, patients, side, config.patients):
        found.warn(id, fault)
    return found


def _check_case(
    source: FolderSource,
    config: DataConfig,
    id: str,
    found: Checked,
    seen: Sequence[SeenImages],
) -> Measured | None:
    """Check one case; what is to be compared with others, if a run would take it."""
    before = found.count("error")
    image = _attempt(lambda: source.read_image(id), id, "files", found)
    label = None
    if image is not None or source.reads_label_alone(id):
        label = _attempt(lambda: source.read_label(id, image), id, "labels", found)
    for fault in source.faults(image, label):
        found.error(id, fault.check, fault.text)
    if image is not None:
        for doubt in scan_doubts(image):
            found.warn(id, doubt)
        _check_twice(source.name, id, image.voxels, found, *seen)
    if image is None or label is None or found.count("error") > before:
        return None
    merged = source.merged(label)
    case = measure(id, image, merged, source.label_names)
    for doubt in case_doubts(case, source.absent(id)):
        found.warn(id, doubt)
    return _check_prepared(case, RawCase(image.voxels, merged, image.affine), config, source, found)


def _check_prepared(
    case: Measured, raw: RawCase, config: DataConfig, source: FolderSource, found: Checked
) -> Measured | None:
    """What the run's own preparation of the case refuses, cuts off or loses."""
    prepared = _attempt(
        lambda: prepare_named(raw, config, case.id, source.name), case.id, "intensities", found
    )
    if prepared is None:
        return None
    kept = prepared.source["foreground_inside"]
    if kept < 1:
        text = (
            f"The grid {config.grid} at {config.spacing} mm keeps {kept:.0%} of the labelled "
            "voxels; set a larger data.grid or data.spacing."
        )
        found.warn(case.id, Fault("geometry", text))
    left = {source.label_names[value] for value in np.unique(prepared.label).tolist()}
    gone = tuple(name for name, count in case.voxels.items() if count and name not in left)
    return replace(case, vanished=gone)


def _attempt(work: Callable[[], T], id: str, check: str, found: Checked) -> T | None:
    """What `work` gives, or None and an error."""
    try:
        return work()
    except InputError as error:
        found.error(id, check, str(error))
        return None


def _check_twice(
    name: str,
    id: str,
    image: NDArray[np.float32],
    found: Checked,
    own: SeenImages,
    earlier: SeenImages,
) -> None:
    """The same image under two ids of this data set, or in another one that was checked before."""
    key = voxel_key(image)
    first = own.again(id, key)
    if first is not None:
        found.error(id, "duplicates", twice(first, id, name))
        return
    other = earlier.again(f"{id} of {name}", key)
    if other is not None:
        text = (
            f"The image holds the same voxels as that of {other}; do not train on one of these "
            "data sets and test on the other."
        )
        found.warn(id, Fault("duplicates", text))


def _check_tasks(source: FolderSource, config: DataConfig, found: Checked) -> None:
    try:
        tasks_of(config, source.label_names)
    except InputError as error:
        found.error("", "labels", str(error))


def _check_split(
    source: FolderSource, config: DataConfig, found: Checked
) -> tuple[dict[str, str], dict[str, str]]:
    """Case id -> patient, and case id -> part; what keeps a run from splitting is an error."""
    patients = {}
    for id in source.ids:
        patient = _attempt(lambda id=id: source.patient(id), id, "split", found)  # type: ignore[misc]
        if patient is not None:
            patients[id] = patient
    parts = _attempt(
        lambda: split_cases(patients, config.split, config.seed, config.holdout or 0),
        *("", "split", found),
    )
    if parts is not None and len(parts["test"]) < 2:
        found.warn("", Fault("split", _SMALL_TEST))
    return patients, {id: part for part, ids in (parts or {}).items() for id in ids}


def _listing_doubts(source: FolderSource) -> Iterator[Fault]:
    """Files that lie there and are not listed, and cases that are listed for test as well."""
    if not isinstance(source, DecathlonSource):
        return
    listed = {path.resolve() for path in source.listed}
    for part in ("imagesTr", "labelsTr"):
        files = sorted((source.folder / part).glob("*"))
        extra = [
            path.name
            for path in files
            if path.name.lower().endswith(SUFFIXES)
            and not path.name.startswith(".")
            and path.resolve() not in listed
        ]
        if extra:
            yield Fault(
                "listing",
                f"{source.folder / part} has {len(extra)} files that {source.listing} does not "
                f"list, such as {extra[0]}; list them, or know that they are not used.",
            )
    for key in ("test", "testing", "validation"):
        shared = sorted(set(source.ids) & set(_listed_ids(source, key)))
        if shared:
            yield Fault(
                "split",
                f"{source.listing} lists {len(shared)} cases of training under {key} too, such as "
                f"{shared[0]}; what is called test data there is trained on.",
            )


def _listed_ids(source: DecathlonSource, key: str) -> Iterator[str]:
    entries: Any = source.meta.get(key)
    for entry in entries if isinstance(entries, list) else []:
        name = entry.get("image") if isinstance(entry, dict) else entry
        if isinstance(name, str) and name.lower().endswith(SUFFIXES):
            yield case_id(Path(name), source.listing)
