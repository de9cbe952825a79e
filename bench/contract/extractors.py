"""The contract of a feature extractor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contract.config import check_identity
from bench.contract.process import changes, elsewhere, process_state, restore
from bench.contract.requirement import Broken, NotChecked, Requirements
from bench.contract.small import GRID, OTHER
from bench.errors import InputError
from bench.extractor import check_contract, construct
from bench.registry import EXTRACTORS
from bench.scaling import Grid, shown

ROUNDING = 1e-5  # of the features' size
COUNT = 3
NO_SUCH_NAME = "no-extractor-has-this-preprocessing"


@dataclass
class ExtractorSubject:
    """An extractor, and its weights where the user gave a file."""

    name: str
    folder: Path
    plugins: Sequence[Path] = ()
    weights: Path | None = None

    @property
    def plugin(self) -> Any:
        return EXTRACTORS.get(self.name)

    @cached_property
    def found(self) -> Path | None:
        """The file of weights; NotChecked where there is none on this machine."""
        if not self.plugin.needs_weights:
            return None
        find = getattr(self.plugin, "find_weights", None)
        path: Path | None = find(self.weights, allow_download=False) if find else self.weights
        if path is None:
            raise NotChecked("it needs weights, and none are here: give --weights FILE")
        return path

    def extractor(self, preprocess: str = "") -> Any:
        known = tuple(self.plugin.preprocessings)
        return construct(self.name, self.plugin, self.found, preprocess or (known or ("",))[0])

    @cached_property
    def ready(self) -> Any:
        return self.extractor()

    def inputs(self, grid: Grid = GRID, seed: int = 0) -> NDArray[np.float32]:
        """Volumes (B, D, H, W), or slices (B, H, W) of one, in [0, 1]."""
        return inputs(self.plugin.protocol, grid, seed)

    @cached_property
    def features(self) -> NDArray[Any]:
        features: NDArray[Any] = self.ready(self.inputs())
        return features


def inputs(protocol: str, grid: Grid, seed: int = 0) -> NDArray[np.float32]:
    """Smooth blobs under noise: no two alike, with dark and bright parts."""
    rng = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in grid), indexing="ij"))
    centres = rng.uniform(-0.3, 0.3, (COUNT, 3, 1, 1, 1))
    blobs = np.exp(-4 * ((axes - centres) ** 2).sum(1))
    noisy: NDArray[np.float32] = (0.8 * blobs + 0.2 * rng.random(blobs.shape)).astype(np.float32)
    return noisy if protocol == "reorient" else noisy[0][:COUNT]


EXTRACTOR: Requirements[ExtractorSubject] = Requirements()
require = EXTRACTOR.add


@require(
    "declared",
    "the class has name, version, protocol, needs_weights, preprocessings and dim, of their types, "
    "and a docstring",
    "set them as metrics.extractors says",
)
def declared(subject: ExtractorSubject) -> None:
    try:
        check_contract(subject.name, subject.plugin)
    except InputError as error:
        raise Broken(str(error)) from error
    check_identity(EXTRACTORS, subject.name)


@require(
    "built",
    "the class takes weights, device and preprocess, has the sha256 of its weights and is called",
    "write __init__(self, weights, device, preprocess) and __call__(self, volumes)",
    "__init__",
    needs=["declared"],
)
def is_built(subject: ExtractorSubject) -> None:
    extractor = subject.ready
    if bool(extractor.sha256) != bool(subject.plugin.needs_weights):
        raise Broken(
            f"needs_weights is {subject.plugin.needs_weights}, sha256 {extractor.sha256!r}"
        )


@require(
    "features",
    "an array (B, dim) of finite numbers for volumes (B, D, H, W), or slices (B, H, W) by 2.5d",
    "return a row for each volume or slice, and set dim to its length",
    "__call__",
    needs=["built"],
)
def features(subject: ExtractorSubject) -> None:
    found = subject.features
    if not isinstance(found, np.ndarray):
        raise Broken(f"a {type(found).__name__} came, no NumPy array")
    if found.shape != (COUNT, subject.plugin.dim):
        raise Broken(f"the shape is {found.shape}, not {(COUNT, subject.plugin.dim)}")
    if not np.isfinite(found).all():
        raise Broken("there are values that are not finite")


@require(
    "each alone",
    "the features of a volume or slice depend on no other: not on batch size or order",
    "normalise each volume by itself, and put networks into eval()",
    "__call__",
    needs=["features"],
)
def each_alone(subject: ExtractorSubject) -> None:
    x, together = subject.inputs(), subject.features
    _alike(subject.ready(x[1:2]), together[1:2], "alone and in a batch")
    _alike(subject.ready(x[::-1].copy()), together[::-1], "in another order")


@require(
    "deterministic",
    "the same volumes give the same features, and are not changed",
    "draw nothing, or from a generator with a fixed seed, and work on a copy",
    "__call__",
    needs=["features"],
)
def deterministic(subject: ExtractorSubject) -> None:
    x = subject.inputs()
    _alike(subject.ready(x), subject.features, "the second time", tolerance=0)
    if not np.array_equal(x, subject.inputs()):
        raise Broken("the volumes it was given are others afterwards")


@require(
    "tells apart",
    "other volumes give other features",
    "let every feature be computed from the volume",
    "__call__",
    needs=["features"],
)
def tells_apart(subject: ExtractorSubject) -> None:
    if np.allclose(subject.features[0], subject.features[1], rtol=ROUNDING, atol=0):
        raise Broken("two volumes have equal features")


@require(
    "preprocessings",
    "every name of preprocessings works, and another one is refused by ValueError",
    "compare preprocess with preprocessings in __init__",
    "__init__",
    needs=["features"],
)
def preprocessings(subject: ExtractorSubject) -> None:
    for name in subject.plugin.preprocessings:
        shape = subject.extractor(name)(subject.inputs()).shape
        if shape != (COUNT, subject.plugin.dim):
            raise Broken(f"with {name} the shape is {shape}")
    if not subject.plugin.preprocessings:
        return
    try:
        subject.extractor(NO_SUCH_NAME)
    except ValueError:
        return
    raise Broken(f"preprocess={NO_SUCH_NAME!r} is taken without a word")


@require(
    "other grid",
    f"a grid of unequal sides, {shown(OTHER)}, gives as many features or a ValueError",
    "average what depends on the grid, and refuse others by a ValueError in one sentence",
    "__call__",
    needs=["features"],
)
def other_grid(subject: ExtractorSubject) -> None:
    try:
        shape = subject.ready(subject.inputs(OTHER)).shape
    except ValueError as error:
        if type(error) is not ValueError or "\n" in str(error):
            raise
        return
    if shape != (COUNT, subject.plugin.dim):
        raise Broken(f"the shape is {shape}, not {(COUNT, subject.plugin.dim)}")


@require(
    "process state",
    "building and calling leave what belongs to the whole process as it was",
    "change settings of torch or NumPy within a with block that puts them back",
    "__call__",
    needs=["features"],
)
def process_left_alone(subject: ExtractorSubject) -> None:
    before = process_state()
    subject.extractor()(subject.inputs())
    found = changes(before, process_state())
    restore(before)
    if found:
        raise Broken("; ".join(found))


@require(
    "another process",
    "a worker that knows only the plug-in's name, file and weights extracts the same features",
    "keep nothing outside the class and its file of weights",
    needs=["deterministic"],
)
def another_process(subject: ExtractorSubject) -> None:
    path = subject.folder / f"{subject.name}.npy"
    elsewhere(subject.plugins, extract, subject.name, subject.found, path)
    _alike(np.load(path, allow_pickle=False), subject.features, "in another process")


def extract(name: str, weights: Path | None, path: Path) -> None:
    """For another process: leaves the features of `inputs`."""
    plugin = EXTRACTORS.get(name)
    preprocess = (tuple(plugin.preprocessings) or ("",))[0]
    extractor = construct(name, plugin, weights, preprocess)
    np.save(path, extractor(inputs(plugin.protocol, GRID)))


def _alike(a: NDArray[Any], b: NDArray[Any], what: str, tolerance: float = ROUNDING) -> None:
    if a.shape != b.shape:
        raise Broken(f"{what} the shape is {a.shape}, not {b.shape}")
    apart = float(np.abs(np.subtract(a, b, dtype=np.float64)).max())
    size = float(np.abs(b).max())
    if not apart <= tolerance * size:
        raise Broken(f"{what} the features differ by up to {apart:.3g}, of a size of {size:.3g}")
