"""Controls: each is exactly as good or bad as it says, and none is ever taken for a model."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nifti_folders import write_folder

from bench.cells.execute import execute
from bench.checksums import sums
from bench.config import resolve
from bench.datasets import DataConfig, open_source
from bench.datasets.fresh import fresh_phantom
from bench.datasets.phantom import phantom_case
from bench.datasets.prepare import prepare
from bench.device import Device
from bench.errors import InputError
from bench.generator import Generator, GeneratorConfig, register_generator
from bench.harness import plan_run
from bench.registry import GENERATORS
from bench.run import Run
from bench.sealed import read_sealed, write_sealed
from bench.store import Store
from bench.volumes import Sample, VolumeSet
from generators.controls.degraded import permute_blocks
from generators.controls.training import original, shift_label

GRID = (32, 32, 32)
CONTROLS = (
    *("oracle", "copycat", "blur-0.5", "blur-1", "blur-2", "noise-0.02", "noise-0.1"),
    *("pure-noise", "average", "scramble", "mislabelled"),
)
CASES = 12
Sets = dict[str, VolumeSet]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """The phantom with two veins merged, nothing held out."""
    config = DataConfig(cases=CASES, grid=GRID, seed=3, labels={2: "vein", 3: "vein"})
    return prepare(open_source(config), config, tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """The same, a quarter of its patients held out."""
    config = DataConfig(cases=CASES, grid=GRID, seed=3, labels={2: "vein", 3: "vein"}, holdout=0.25)
    return prepare(open_source(config), config, tmp_path_factory.mktemp("held"))


Draw = Callable[..., list[Sample]]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """`draw("blur-1", sets, range(3), seed=0)`: fit and sample, as the harness does."""

    def run(
        name: str, sets: Sets, indices: Sequence[int], seed: int = 0, **fields: Any
    ) -> list[Sample]:
        plugin = GENERATORS.get(name)
        control: Generator = plugin(plugin.Config.model_validate(fields))
        train = sets["train"]
        control.check(train.grid, train.label_names)
        given = make_run(sets, seed, tmp_path)
        path = tmp_path / "state.pt"
        torch.save(dict(control.fit(train, sets["val"], given)), path)
        given.states = {"fit": path}
        return list(control.sample(indices, given))

    return run


def make_run(sets: Sets, seed: int, folder: Path) -> Run:
    seen = {part: sets[part] for part in ("train", "held") if part in sets}
    names = sets["train"].label_names
    return Run(seed=seed, folder=folder, grid=GRID, label_names=names, sets=seen)


def same(a: Sample, b: Sample) -> bool:
    labels = (a.label is None) == (b.label is None)
    if a.label is not None and b.label is not None:
        labels = np.array_equal(a.label, b.label)
    return labels and np.array_equal(a.image, b.image)


def test_the_controls_are_these_and_are_no_part_of_all() -> None:
    assert set(CONTROLS) == {
        n for n in GENERATORS.control_names() if GENERATORS.origin(n).source.startswith("voxelb")
    }
    assert not set(CONTROLS) & set(GENERATORS.names())
    for name in CONTROLS:
        plugin = GENERATORS.get(name)
        assert plugin.name == name
        assert all(field.description for field in plugin.Config.model_fields.values())
        assert plugin.needs_held == (name not in ("copycat", "average"))


@pytest.mark.parametrize("which", ["sets", "held"])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_volume_depends_on_seed_and_index_alone_and_fits_the_set(
    name: str, which: str, request: pytest.FixtureRequest, draw: Draw
) -> None:
    sets = request.getfixturevalue(which)
    several, one = draw(name, sets, range(4)), draw(name, sets, [2])
    assert same(several[2], one[0])
    other = draw(name, sets, [2, 3, 1], seed=1)
    if name != "average":
        assert not same(several[2], other[0])
        assert not same(several[2], several[3])
    for sample in several:
        assert sample.image.shape == GRID
        assert sample.image.dtype == np.float32
        assert 0 <= sample.image.min() < sample.image.max() <= 1
        if GENERATORS.get(name).labels == "none":
            assert sample.label is None
        else:
            assert sample.label is not None
            assert sample.label.dtype == np.uint8
            assert set(np.unique(sample.label)) <= set(sets["train"].label_names)


def test_the_oracles_phantoms_are_in_no_split_and_never_repeat(sets: Sets, draw: Draw) -> None:
    drawn = [s.image for seed in (0, 1) for s in draw("oracle", sets, range(6), seed)]
    known = [part.image(i) for part in sets.values() for i in range(len(part))]
    assert len(known) == CASES
    for i, image in enumerate(drawn):
        # Prepared images are stored in half precision.
        assert min(np.abs(image - other).max() for other in (*known, *drawn[:i])) > 0.1
    raw = phantom_case(CASES, 3, GRID)
    np.testing.assert_array_equal(drawn[0], raw.image)


def test_the_oracles_labels_are_merged_as_the_sets_are(sets: Sets, draw: Draw) -> None:
    raw = phantom_case(CASES, 3, GRID).label
    assert {2, 3} <= set(np.unique(raw))
    label = draw("oracle", sets, [0])[0].label
    np.testing.assert_array_equal(label, np.where(raw == 3, 2, raw))


def test_the_oracles_real_cases_are_those_held_out_in_an_order_of_the_seed(
    held: Sets, draw: Draw
) -> None:
    real = [held["held"].image(i) for i in range(len(held["held"]))]
    assert len(real) == 3

    def rows(seed: int) -> list[int]:
        drawn = draw("oracle", held, range(6), seed)
        found = [[np.array_equal(s.image, image) for image in real].index(True) for s in drawn]
        for row, sample in zip(found, drawn, strict=True):
            np.testing.assert_array_equal(sample.label, held["held"].label(row))
        return found

    orders = [rows(seed) for seed in range(8)]
    for order in orders:
        assert sorted(order[:3]) == [0, 1, 2]
        assert order[3:] == order[:3]
    assert len({tuple(order) for order in orders}) > 2


def test_without_held_cases_only_the_phantom_has_fresh_ones(tmp_path: Path, draw: Draw) -> None:
    config = DataConfig(source=str(write_folder(tmp_path / "in")), grid=GRID)
    real = prepare(open_source(config), config, tmp_path / "sets")
    with pytest.raises(InputError, match=r"none were held out .* set data.holdout"):
        draw("oracle", real, [0])
    with pytest.raises(InputError, match=r"ellipsoids cannot be drawn: only the phantom"):
        fresh_phantom(real["train"], 0)
    assert len(draw("copycat", real, [0])) == 1


def high_frequencies(image: np.ndarray) -> float:
    """Energy beyond half the Nyquist frequency of any axis, apart from the borders."""
    window = np.hanning(32)
    power = np.abs(np.fft.fftn(image * window * window[:, None] * window[:, None, None])) ** 2
    frequency = np.stack(np.meshgrid(*[np.abs(np.fft.fftfreq(n)) for n in GRID], indexing="ij"))
    return float(power[frequency.max(axis=0) > 0.25].sum())


def test_blur_takes_high_frequencies_away_the_more_the_stronger(sets: Sets, draw: Draw) -> None:
    names = ("oracle", "blur-0.5", "blur-1", "blur-2")
    drawn = {name: draw(name, sets, range(2)) for name in names}
    for i in range(2):
        energy = [high_frequencies(drawn[name][i].image) for name in names]
        # A Gaussian of half a voxel leaves exp(-(pi/4)^2) = .54 there at most.
        assert all(b < 0.54 * a for a, b in pairwise(energy))
        for name in names[1:]:
            np.testing.assert_array_equal(drawn[name][i].label, drawn["oracle"][i].label)
            assert drawn[name][i].image.mean() == pytest.approx(
                drawn["oracle"][i].image.mean(), rel=0.02
            )


def test_the_strength_of_a_blur_is_its_configuration(sets: Sets, draw: Draw) -> None:
    for name, sigma in (("blur-0.5", 0.5), ("blur-1", 1.0), ("blur-2", 2.0)):
        assert GENERATORS.get(name).Config().sigma == sigma
    assert same(draw("blur-1", sets, [0], sigma=2)[0], draw("blur-2", sets, [0])[0])
    config = resolve("quick", {}, ["generators.blur-0.5.sigma=0.7"], "blur-0.5", "none", {})
    assert config.generators == {"blur-0.5": {"sigma": 0.7}}


@pytest.mark.parametrize(("name", "sigma"), [("noise-0.02", 0.02), ("noise-0.1", 0.1)])
def test_noise_has_the_stated_strength(name: str, sigma: float, sets: Sets, draw: Draw) -> None:
    clean, noisy = draw("oracle", sets, [0])[0], draw(name, sets, [0])[0]
    np.testing.assert_array_equal(noisy.label, clean.label)
    inside = (clean.image > 0.45) & (clean.image < 0.55)  # where clipping hardly reaches
    n = int(inside.sum())
    added = (noisy.image - clean.image)[inside]
    assert n > 300
    assert abs(added.mean()) < 5 * sigma / math.sqrt(n)
    assert added.std() == pytest.approx(sigma, rel=5 / math.sqrt(2 * n))


def test_pure_noise_is_uniform_and_independent_of_its_label(sets: Sets, draw: Draw) -> None:
    from scipy.stats import kstest

    noise, real = draw("pure-noise", sets, [1])[0], draw("oracle", sets, [1])[0]
    np.testing.assert_array_equal(noise.label, real.label)
    assert kstest(noise.image.ravel(), "uniform").pvalue > 0.001
    correlation = np.corrcoef(noise.image.ravel(), real.image.ravel())[0, 1]
    assert abs(correlation) < 5 / math.sqrt(noise.image.size)


def test_a_copy_is_nearest_to_its_original_and_not_equal_to_it(sets: Sets, draw: Draw) -> None:
    train = sets["train"]
    n = len(train)
    flat = train.images().reshape(n, -1)
    run = make_run(sets, 0, Path())
    sources = [original(i, run) for i in range(2 * n)]
    assert sorted(sources[:n]) == list(range(n))
    assert sources[n:] == sources[:n]
    assert sources[:n] != [original(i, make_run(sets, 1, Path())) for i in range(n)]
    copies = draw("copycat", sets, range(n + 2))
    for i, copy in enumerate(copies):
        correlation = np.corrcoef(copy.image.ravel(), flat)[0, 1:]
        assert correlation.argmax() == sources[i]
        assert 0.98 < correlation.max() < 1 - 1e-6
        assert copy.label is not None
        assert (copy.label == train.label(sources[i])).mean() > 0.97
    assert not same(copies[0], copies[n])  # the same original, another jitter


def test_image_and_label_of_a_copy_move_together(sets: Sets, draw: Draw) -> None:
    still = {"gain": 0, "gamma": 0, "noise": 0}
    train = sets["train"]
    row = original(0, make_run(sets, 0, Path()))
    unmoved = draw("copycat", sets, [0], shift=0, **still)[0]
    np.testing.assert_allclose(unmoved.image, train.image(row), atol=1e-5)
    np.testing.assert_array_equal(unmoved.label, train.label(row))
    # Along one axis, half a voxel is the turning point.
    label = np.zeros(GRID, np.uint8)
    label[8:20, 8:20, 8:20] = 4
    assert np.array_equal(shift_label(label, np.array([0, 0, -0.4])), label)
    moved = shift_label(label, np.array([0.6, 0, 0]))
    assert np.array_equal(moved, np.roll(label, 1, axis=0))
    # Edges and corners go by all three axes together: against an interpolation done by hand.
    shift = np.array([0.45, -0.45, 0.4])
    weight = np.zeros(GRID)
    for corner in np.ndindex(2, 2, 2):
        step = np.array(corner) * np.sign(shift).astype(int)
        share = np.prod(np.where(np.array(corner), np.abs(shift), 1 - np.abs(shift)))
        weight += share * np.roll(label == 4, step, axis=(0, 1, 2))
    np.testing.assert_array_equal(shift_label(label, shift) == 4, weight > 0.5)


def test_average_is_one_volume_again_and_again(sets: Sets, draw: Draw) -> None:
    drawn = draw("average", sets, range(3)) + draw("average", sets, [7], seed=5)
    assert len({sample.image.tobytes() for sample in drawn}) == 1
    expected = sets["train"].images().astype(float).mean(axis=0)
    np.testing.assert_allclose(drawn[0].image, expected, atol=1e-6)


def test_scramble_keeps_every_voxel_and_no_anatomy(sets: Sets, draw: Draw) -> None:
    for real, moved in zip(
        draw("oracle", sets, range(3)), draw("scramble", sets, range(3)), strict=True
    ):
        assert real.label is not None
        assert moved.label is not None
        pairs = [np.stack([s.image.ravel(), s.label.ravel()]) for s in (real, moved)]  # type: ignore[union-attr]
        ordered = [pair[:, np.lexsort(pair)] for pair in pairs]
        np.testing.assert_array_equal(*ordered)
        assert np.corrcoef(real.image.ravel(), moved.image.ravel())[0, 1] < 0.5
        # Within a block of 8 voxels a side nothing is changed.
        blocks = {
            tuple(s.image[i : i + 8, j : j + 8, k : k + 8].ravel())
            for s in (real, moved)
            for i in range(0, 32, 8)
            for j in range(0, 32, 8)
            for k in range(0, 32, 8)
        }
        assert len(blocks) <= 4**3
    with pytest.raises(InputError, match=r"into 5 equal blocks; set generators.scramble.blocks"):
        draw("scramble", sets, [0], blocks=5)


@settings(max_examples=30, deadline=None)
@given(volume=arrays(np.uint8, (6, 9, 12)), seed=st.integers(0, 99))
def test_blocks_go_where_they_are_sent(volume: np.ndarray, seed: int) -> None:
    places = np.random.default_rng(seed).permutation(27)
    moved = permute_blocks(volume, places)
    for number, source in enumerate(places):
        (i, j, k), (a, b, c) = (np.unravel_index(x, (3, 3, 3)) for x in (number, source))
        np.testing.assert_array_equal(
            moved[2 * i : 2 * i + 2, 3 * j : 3 * j + 3, 4 * k : 4 * k + 4],
            volume[2 * a : 2 * a + 2, 3 * b : 3 * b + 3, 4 * c : 4 * c + 4],
        )


@pytest.mark.parametrize("which", ["sets", "held"])
def test_mislabelled_has_the_oracles_images_and_the_next_labels(
    which: str, request: pytest.FixtureRequest, draw: Draw
) -> None:
    given = request.getfixturevalue(which)
    real, wrong = draw("oracle", given, range(5)), draw("mislabelled", given, range(4))
    for i, sample in enumerate(wrong):
        np.testing.assert_array_equal(sample.image, real[i].image)
        np.testing.assert_array_equal(sample.label, real[i + 1].label)
        assert not np.array_equal(sample.label, real[i].label)  # type: ignore[arg-type]
    assert same(draw("mislabelled", given, [3, 1])[1], wrong[1])


class SpyConfig(GeneratorConfig):
    """Nothing to set."""


def spy(name: str, needs: bool) -> list[dict[str, tuple[str, ...]]]:
    """A generator that notes the ids of the sets that its fit and its sample are shown."""
    seen: list[dict[str, tuple[str, ...]]] = []

    def note(run: Run) -> None:
        seen.append({part: volumes.ids for part, volumes in run.sets.items()})

    @register_generator(name, control=needs)
    class Spy(Generator):
        Config = SpyConfig
        needs_held = needs

        def fit(self, train: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
            note(run)
            return {}

        def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
            note(run)
            for i in indices:
                yield Sample(run.sets["train"].image(i % len(run.sets["train"])))

    return seen


def run_cells(config: Any, out: Path, *kinds: str) -> Store:
    """Execute the cells of these kinds; all must end well."""
    plan = plan_run(config)
    store = Store(out)
    store.prepare_folder()
    for cell in plan.cells:
        if cell.kind in kinds:
            store.add(cell)
            assert execute(store, cell.key, Device()) == "done", store.status(cell.key)
    return store


def test_held_cases_are_shown_when_a_control_samples_and_to_nothing_else(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", n=10)
    needing, other = spy("spy-needing", True), spy("spy-other", False)
    data = {"source": str(folder), "grid": GRID, "cases": None}
    config = resolve("quick", data, [], "spy-other,spy-needing", "none", {})
    assert config.data.holdout == 0.2
    run_cells(config, tmp_path / "out", "prepare", "fit", "sample")
    sets = prepare(open_source(config.data), config.data, tmp_path / "sets")
    train, held = sets["train"].ids, sets["held"].ids
    assert (len(train), len(held)) == (5, 2)
    assert other == [{"train": train}, {"train": train}]
    assert needing == [{"train": train}, {"train": train, "held": held}]


@pytest.mark.parametrize("part", ["train", "held"])
def test_a_test_case_among_those_shown_fails_the_cell(tmp_path: Path, part: str) -> None:
    spy("spy-needing", True)
    data = {"source": str(write_folder(tmp_path / "in", n=10)), "grid": GRID, "cases": None}
    config = resolve("quick", data, [], "spy-needing", "none", {})
    store = run_cells(config, tmp_path / "out", "prepare", "fit")
    prepared, sample = (
        next(cell for cell in plan_run(config).cells if cell.kind == kind)
        for kind in ("prepare", "sample")
    )
    folder = store.artefacts(prepared.key)
    tested = VolumeSet.open(folder / "test").ids[0]
    path = folder / part / "set.json"
    path.write_text(path.read_text().replace(VolumeSet.open(folder / part).ids[0], tested))
    result = store.folder(prepared.key) / "result.json"  # as if the cell itself had erred
    write_sealed(result, read_sealed(result) | {"artefacts": sums(folder)})
    store.add(sample)
    assert execute(store, sample.key, Device()) == "failed"
    first, second = sorted((part, "test"), key=["train", "test", "held"].index)
    assert f"{tested} is in both {first} and {second}" in store.status(sample.key)[1]


def test_controls_are_listed_as_a_kind_of_their_own(bench: Callable[..., Ran]) -> None:
    controls, models = bench("list", "controls").out, bench("list", "generators").out
    assert all(f"\n{name} " in controls for name in CONTROLS)
    assert not any(f"\n{name} " in models for name in CONTROLS)
    assert "sigma: 0.5  # of the Gaussian" in bench("list", "blur-0.5").out
    refused = bench("list", "orcale")
    assert refused.code == 2
    assert "did you mean oracle" in refused.err


def test_controls_need_no_torch_to_be_looked_at() -> None:
    code = (
        "import sys\n"
        "from bench.registry import GENERATORS\n"
        "for name in GENERATORS.control_names(): GENERATORS.get(name)\n"
        "assert not {'torch', 'monai'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_only_data_without_fresh_cases_are_held_out(tmp_path: Path) -> None:
    folder = {"source": str(write_folder(tmp_path / "in", n=10)), "grid": GRID, "cases": None}

    def holdout(data: dict[str, Any], generators: str, *settings: str) -> float | None:
        return resolve("quick", data, settings, generators, "none", {}).data.holdout

    assert holdout({}, "controls") is None
    assert holdout(folder, "ha-gan,copycat,average") is None
    assert holdout(folder, "ha-gan,oracle") == 0.2
    assert holdout(folder, "controls", "data.holdout=0.3") == 0.3
    assert holdout(folder, "ha-gan", "data.holdout=0.3") == 0.3


def test_what_is_held_out_leaves_training_alone_in_the_plan(tmp_path: Path) -> None:
    data = {"source": str(write_folder(tmp_path / "in", n=10)), "grid": GRID, "cases": None}

    def facts(generators: str, *settings: str) -> tuple[Any, str]:
        plan = plan_run(resolve("quick", data, settings, generators, "none", {}))
        return plan.data, plan.cells[0].key

    plain, key = facts("copycat")
    held, other = facts("oracle,copycat")
    assert (plain.n_train, plain.n_val, plain.n_test, plain.n_held) == (7, 1, 2, 0)
    assert (held.n_train, held.n_val, held.n_test, held.n_held) == (5, 1, 2, 2)
    assert key != other
    assert facts("copycat", "data.holdout=0")[1] == key
    assert facts("copycat", "data.holdout=0.2")[1] == other


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("data.holdout=0", r"'oracle' draws real cases .* 0 of ellipsoids leaves 0; give more"),
        ("data.holdout=0.1", r"data.holdout 0.1 of ellipsoids leaves 1"),
        ("data.holdout=0.9", r"data.holdout 0.9 takes 9 of 10 patients, .* split has 7"),
        ("data.holdout=1", r"data.holdout .* is 1"),
    ],
)
def test_too_few_cases_to_hold_any_out_are_told_before_anything_runs(
    tmp_path: Path, setting: str, sentence: str
) -> None:
    folder = write_folder(tmp_path / "in", n=10)
    data = {"source": str(folder), "grid": GRID, "cases": None}
    with pytest.raises(InputError, match=sentence):
        plan_run(resolve("quick", data, [setting], "oracle", "none", {}))


def test_the_whole_way_of_every_control(tmp_path: Path) -> None:
    settings = ["data.cases=10", "scoring.synthetic=3"]
    config = resolve("quick", {"grid": GRID}, settings, "controls", "none", {})
    assert sorted(config.generators) == sorted(CONTROLS)
    store = run_cells(config, tmp_path, "prepare", "fit", "sample")
    made = [cell for cell in plan_run(config).cells if cell.kind == "sample"]
    assert len(made) == len(CONTROLS)
    for cell in made:
        volumes = VolumeSet.open(store.artefacts(cell.key) / "synthetic")
        assert len(volumes) == 3
        assert volumes.has_labels == (cell.tags.label_source == "joint")
        assert (cell.tags.generator == "average") == (cell.tags.label_source == "pseudo")
