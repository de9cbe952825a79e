"""Features are extracted once per image and extractor, and never read where anything differs."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.cells.context import Context
from bench.cells.feature_cache import FeatureCache
from bench.cells.features import run
from bench.cells.segment import first_cases
from bench.device import Device
from bench.extractor import register_extractor
from bench.plan import TASK, Cell
from bench.registry import EXTRACTORS
from bench.store import Store
from bench.volumes import VolumeSet, VolumeSetWriter
from metrics.planes import PLANES

GRID = (32, 48, 32)
LABELS = {0: "background", 1: "organ", 2: "vein"}
DETERMINANTS = {
    "extractor": "toy",
    "plugin": "toy",
    "version": "1",
    "preprocess": "",
    "protocol": "reorient",
    "sha256": "",
}


class Toy:
    """Mean of every eighth of the first axis; counts the volumes that it is shown."""

    version = "1"
    protocol = "reorient"
    needs_weights = False
    preprocessings = ("plain", "double")
    sha256 = ""
    dim = 4
    seen = 0

    def __init__(self, weights: Path | None, device: str, preprocess: str) -> None:
        self.factor = 2 if preprocess == "double" else 1

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float64]:
        type(self).seen += len(volumes)
        parts = np.array_split(volumes.mean(axis=(2, 3), dtype=np.float64), 4, axis=1)
        return np.stack([self.factor * part.mean(axis=1) for part in parts], axis=1)


@pytest.fixture
def toy() -> type[Toy]:
    toy: type[Toy] = register_extractor("toy")(type("Counting", (Toy,), {}))
    return toy


def write_set(folder: Path, n: int, seed: int = 0, labels: int = 0, dtype: Any = "float16") -> None:
    rng, other = np.random.default_rng(seed), np.random.default_rng(labels)
    with VolumeSetWriter(folder, GRID, LABELS, dtype=dtype) as writer:
        for i in range(n):
            label = other.integers(0, 3, GRID).astype(np.uint8)
            writer.append(f"{folder.name}-{i}", rng.random(GRID).astype(np.float16), label)


def finished(store: Store, cell: Cell, fill: Callable[[Path], None]) -> str:
    """Make a cell that is done, its artefacts written by `fill`."""
    store.add(cell)
    with store.attempt(cell.key) as fresh:
        fill(fresh)
        store.finish(cell.key, fresh, [], {"seconds": 0.0})
    return cell.key


def data(store: Store) -> str:
    def fill(fresh: Path) -> None:
        for seed, (part, n) in enumerate({"train": 5, "val": 2, "test": 3}.items()):
            write_set(fresh / part, n, seed)

    return finished(store, Cell("prepare", {}), fill)


def synthetic(store: Store, name: str, labels: int = 0, seed: int = 7) -> str:
    return finished(
        store,
        Cell("sample", {"plugin": name}),
        lambda fresh: write_set(fresh / "synthetic", 4, seed, labels),
    )


def extract(store: Store, part: str, count: int, needs: dict[str, str], **over: Any) -> Any:
    """features.npz of a features cell."""
    spec = {**DETERMINANTS, "part": part, "count": count, **over}
    cell = Cell("features", spec, needs, extra={"weights": ""})
    store.add(cell)
    with store.attempt(cell.key) as fresh:
        context = Context(cell, store, fresh, Device(), lambda *_: None, lambda: False)
        assert run(context) == []
        with np.load(fresh / "features.npz") as file:
            return {name: file[name] for name in file.files}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "out")
    store.prepare_folder()
    return store


def files(store: Store) -> list[Path]:
    return sorted((store.out / "features").rglob("*.npz"))


def test_parts_counts_and_orders(store: Store, toy: type[Toy]) -> None:
    needs = {"data": data(store)}
    train = VolumeSet.open(store.artefacts(needs["data"]) / "train")
    found = extract(store, "train", 5, needs)
    assert set(found) == set(PLANES)
    for plane, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
        assert found[plane].dtype == np.float64
        for row, image in zip(found[plane], first_cases(train, 5).images(), strict=True):
            parts = np.array_split(np.moveaxis(image, axis, 0).astype(np.float64), 4)
            np.testing.assert_allclose(row, [part.mean() for part in parts], rtol=1e-6)
    # A smaller set is the first rows of a larger one, and was extracted with it.
    assert toy.seen == 3 * 5
    fewer = extract(store, "train", 2, needs)
    np.testing.assert_array_equal(fewer["axial"], found["axial"][:2])
    assert toy.seen == 3 * 5
    assert len(extract(store, "test", 3, needs)["axial"]) == 3
    assert toy.seen == 3 * 8


def test_the_same_images_with_other_labels_or_another_generator_are_not_extracted_again(
    store: Store, toy: type[Toy]
) -> None:
    first = extract(store, "synthetic", 4, {"synthetic": synthetic(store, "oracle")})
    assert toy.seen == 3 * 4
    other = synthetic(store, "mislabelled", labels=1)
    second = extract(store, "synthetic", 4, {"synthetic": other})
    assert toy.seen == 3 * 4
    for plane in PLANES:
        np.testing.assert_array_equal(first[plane], second[plane])
    extract(store, "synthetic", 4, {"synthetic": synthetic(store, "fresh", seed=8)})
    assert toy.seen == 3 * 8


def test_an_extractor_that_is_not_needed_is_not_built(
    store: Store, toy: type[Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {"data": data(store)}
    extract(store, "test", 3, needs)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(toy, "__init__", refuse)
    extract(store, "test", 2, needs)
    with pytest.raises(AssertionError, match="built again"):
        extract(store, "val", 2, needs)


def test_equal_volumes_are_extracted_once(store: Store, toy: type[Toy]) -> None:
    def fill(fresh: Path) -> None:
        image = np.random.default_rng(0).random(GRID).astype(np.float16)
        with VolumeSetWriter(fresh / "synthetic", GRID, LABELS) as writer:
            for i in range(20):
                writer.append(f"average-{i}", image if i != 11 else image / 2)

    cell = finished(store, Cell("sample", {"plugin": "average"}), fill)
    found = extract(store, "synthetic", 20, {"synthetic": cell})["axial"]
    assert toy.seen == 3 * 2
    np.testing.assert_allclose(found[11], found[0] / 2, rtol=1e-3)
    np.testing.assert_array_equal(np.delete(found, 11, axis=0), found[:1].repeat(19, axis=0))


def test_what_a_patchy_cache_lacks_is_extracted_together_and_told_to_the_end(
    store: Store, toy: type[Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(fresh: Path) -> None:
        with VolumeSetWriter(fresh / "synthetic", GRID, LABELS) as writer:
            for i in range(24):
                image = np.random.default_rng(i % 12).random(GRID).astype(np.float16)
                writer.append(f"c-{i}", image)

    needs = {"synthetic": finished(store, Cell("sample", {"plugin": "copies"}), fill)}
    every = extract(store, "synthetic", 24, needs)
    for file in files(store)[::2]:
        file.unlink()
    batches: list[int] = []
    told: list[tuple[int, int]] = []
    called = toy.__call__

    def count(self: Toy, volumes: NDArray[Any]) -> NDArray[np.float64]:
        batches.append(len(volumes))
        return called(self, volumes)

    monkeypatch.setattr(toy, "__call__", count)
    monkeypatch.setattr(Context, "tick", lambda self, step, total: told.append((step, total)))
    again = extract(store, "synthetic", 24, needs)
    assert sum(batches) == 3 * 6
    assert max(batches) == 4  # volumes that `plane_features` has in memory
    assert told == [(24, 24)]
    # Where nothing can be kept, equal volumes are extracted once all the same.
    batches.clear()
    shutil.rmtree(store.out / "features")
    (store.out / "features").write_text("in the way")
    uncached = extract(store, "synthetic", 24, needs)
    assert sum(batches) == 3 * 12
    for plane in PLANES:
        np.testing.assert_array_equal(again[plane], every[plane])
        np.testing.assert_array_equal(uncached[plane], every[plane])


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", "2"), ("preprocess", "double"), ("protocol", "2.5d"), ("sha256", "ab")],
)
def test_another_version_weights_protocol_or_preprocessing_is_extracted_anew(
    store: Store, toy: type[Toy], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {"data": data(store)}
    before = extract(store, "test", 3, needs)
    if name == "sha256":
        monkeypatch.setattr(toy, "sha256", value)
    found = extract(store, "test", 3, needs, **{name: value})
    assert toy.seen == 2 * 3 * 3
    factor = 2 if name == "preprocess" else 1
    np.testing.assert_allclose(found["axial"], factor * before["axial"])


def test_another_plugin_that_prints_the_same_name_is_extracted_anew(
    store: Store, toy: type[Toy]
) -> None:
    double = type("Double", (toy,), {"preprocessings": ("double",)})
    EXTRACTORS.register("toy-too", double)
    assert double.name == toy.name == "toy"  # type: ignore[attr-defined]
    needs = {"data": data(store)}
    before = extract(store, "test", 3, needs)
    toy.seen = double.seen = 0
    found = extract(store, "test", 3, needs, plugin="toy-too")
    assert double.seen == 3 * 3
    for plane in PLANES:
        np.testing.assert_array_equal(found[plane], before[plane])
    extract(store, "test", 3, needs)
    assert toy.seen == 0


def test_a_folder_that_cannot_be_written_fails_no_cell(
    store: Store, toy: type[Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {"data": data(store)}
    (store.out / "features").write_text("in the way")
    found = extract(store, "test", 3, needs)
    (store.out / "features").unlink()
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        whole(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        again = extract(store, "test", 3, needs)
    assert [p for p in (store.out / "features").rglob("*") if p.is_file()] == []
    later = extract(store, "test", 3, needs)
    assert toy.seen == 3 * 3 * 3
    assert len(files(store)) == 3
    for plane in PLANES:
        np.testing.assert_array_equal(again[plane], found[plane])
        np.testing.assert_array_equal(later[plane], found[plane])


def test_weights_that_changed_since_the_plan_are_refused(store: Store, toy: type[Toy]) -> None:
    with pytest.raises(ValueError, match="was planned with abcd"):
        extract(store, "test", 3, {"data": data(store)}, sha256="abcd")


def test_one_voxel_decides(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, DETERMINANTS)
    image = np.random.default_rng(0).random((4, 5, 6)).astype(np.float16)
    key = cache.key(image)
    assert cache.key(image.copy()) == key
    assert cache.key(np.asfortranarray(image)) == key
    changed = image.copy()
    changed[3, 4, 5] = np.nextafter(changed[3, 4, 5], np.float16(2))
    others = {
        cache.key(changed),
        cache.key(image.astype(np.float32)),
        cache.key(image.reshape(5, 4, 6)),
        cache.key(image.view(np.uint16)),
    }
    others |= {FeatureCache(tmp_path, {**DETERMINANTS, k: "x"}).key(image) for k in DETERMINANTS}
    assert len(others - {key}) == 4 + len(DETERMINANTS)


@pytest.mark.parametrize("exact_in_float32", [True, False])
def test_what_is_written_is_read_bit_by_bit(tmp_path: Path, exact_in_float32: bool) -> None:
    rng = np.random.default_rng(0)
    rows = {plane: rng.normal(size=(6, 9)) for plane in PLANES}
    if exact_in_float32:
        rows = {k: v.astype(np.float32).astype(np.float64) for k, v in rows.items()}
    cache = FeatureCache(tmp_path / "features", DETERMINANTS)
    key = "ab" * 32
    assert cache.read(key) is None
    cache.write(key, rows)
    found = cache.read(key)
    assert found is not None
    for plane in PLANES:
        assert found[plane].dtype == np.float64
        np.testing.assert_array_equal(found[plane], rows[plane])
    assert cache.path(key).stat().st_size < (1 if exact_in_float32 else 2) * 3 * 54 * 4 + 1500
    assert [path.name for path in (tmp_path / "features" / "ab").iterdir()] == [f"{key}.npz"]


def test_a_flipped_byte_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, DETERMINANTS)
    key = hashlib.sha256(b"volume").hexdigest()
    rows = {plane: np.random.default_rng(1).normal(size=12) for plane in PLANES}
    cache.write(key, rows)
    path = cache.path(key)
    whole = path.read_bytes()
    noticed = 0
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        found = cache.read(key)
        # A byte that carries nothing (a date in the archive) may differ; a feature never.
        noticed += found is None
        for plane in PLANES if found is not None else ():
            np.testing.assert_array_equal(found[plane], rows[plane])
    assert noticed > len(whole) / 7 / 2
    for content in (b"", b"PK", whole[:-1], whole[: len(whole) // 2], b"<html>"):
        path.write_bytes(content)
        assert cache.read(key) is None
    path.write_bytes(whole)
    assert cache.read(key) is not None
    other = "cd" * 32
    cache.path(other).parent.mkdir()
    os.replace(path, cache.path(other))
    assert cache.read(other) is None  # another volume's file under this name


def test_a_damaged_file_is_recomputed_and_mended(store: Store, toy: type[Toy]) -> None:
    needs = {"data": data(store)}
    before = extract(store, "test", 3, needs)
    damaged = files(store)[1]
    content = bytearray(damaged.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1  # in the values of the first array
    damaged.write_bytes(content)
    again = extract(store, "test", 3, needs)
    assert toy.seen == 3 * (3 + 1)
    for plane in PLANES:
        np.testing.assert_array_equal(again[plane], before[plane])
    extract(store, "test", 3, needs)
    assert toy.seen == 3 * (3 + 1)


def test_many_writers_of_one_file_leave_it_whole(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, DETERMINANTS)
    key, rows = "ef" * 32, {"volume": np.random.default_rng(2).normal(size=2000)}

    def work(_: int) -> bool:
        cache.write(key, rows)
        found = FeatureCache(tmp_path, DETERMINANTS).read(key)
        return found is not None and np.array_equal(found["volume"], rows["volume"])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(60)))
    assert len(list((tmp_path / "ef").iterdir())) == 1


def test_slices_by_the_protocol_2_5d(store: Store) -> None:
    class Slices(Toy):
        """Mean and deviation of a slice."""

        protocol = "2.5d"
        preprocessings = ()
        dim = 2

        def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float64]:
            values = volumes.reshape(len(volumes), -1).astype(np.float64)
            return np.stack([values.mean(axis=1), values.std(axis=1)], axis=1)

    register_extractor("slices")(Slices)
    found = extract(store, "test", 3, {"data": data(store)}, plugin="slices", protocol="2.5d")
    assert {p: v.shape for p, v in found.items()} == {
        "axial": (3, 32, 2), "sagittal": (3, 32, 2), "coronal": (3, 48, 2)
    }  # fmt: skip


def test_task_features_of_the_labeller(store: Store) -> None:
    """The cached ones of one labeller are never another's."""
    import torch

    from bench.cells.labeller import every_label
    from bench.cells.segmentation import build
    from bench.run import Run
    from metrics.extractors.task import TaskFeatures

    sets = data(store)
    test = VolumeSet.open(store.artefacts(sets) / "test")
    found, networks = [], []
    for seed in (0, 1):
        spec = {"segmenter": "unet", "config": {}, "seed": seed}
        network = build(spec, every_label(test), Run(seed, store.out, GRID, LABELS))
        networks.append(network)
        labeller = finished(
            store,
            Cell("labeller", spec, {"data": sets}),
            lambda fresh, network=network: torch.save(network.state_dict(), fresh / "state.pt"),  # type: ignore[misc]
        )
        needs = {"data": sets, "labeller": labeller}
        over = {"extractor": TASK.name, "plugin": TASK.name, "protocol": TASK.protocol}
        found.append(extract(store, "test", 3, needs, seed=0, version=TASK.version, **over))
    assert list(found[0]) == ["volume"]
    for network, features in zip(networks, found, strict=True):
        expected = TaskFeatures(network, "")(test.images())
        np.testing.assert_allclose(features["volume"], expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(found[0]["volume"], found[1]["volume"])
    assert len(files(store)) == 2 * 3
    extract(store, "test", 3, needs, seed=0, version="raised", **over)
    assert len(files(store)) == 3 * 3
