"""Preparation: every voxel keeps its place in the world, whatever the orientation and grid."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.processing import resample_from_to
from nifti_folders import case, write_folder

from bench.datasets import DataConfig, RawCase, open_source
from bench.datasets.prepare import _in_order, prepare, prepare_case, scale_to_unit
from bench.errors import InputError
from bench.volumes import VolumeSet

DATA = Path(__file__).parents[3] / "shared" / "data"
GRID = (32, 48, 32)
ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(axes, sides, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for sides in itertools.product((0, 1), repeat=3)
]


def config(**fields: object) -> DataConfig:
    return DataConfig(**{"source": "unused", "grid": GRID, **fields})


def raw_case(
    axes: str = "RAS", spacing: tuple[float, ...] = (1.5, 1.0, 2.0), seed: int = 0
) -> RawCase:
    """An ellipsoid in noise whose array axes are `axes`, slightly oblique, away from the origin."""
    image, label = case(seed)
    angle = np.deg2rad(7)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = nib.affines.from_matvec(turn @ np.diag(spacing), [-40, 25, 300])
    ras = nib.Nifti1Image(image, affine)
    to = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    )
    turned = ras.as_reoriented(to)
    labels = nib.Nifti1Image(label, affine).as_reoriented(to)
    assert nib.aff2axcodes(turned.affine) == tuple(axes)
    return RawCase(np.asarray(turned.dataobj), np.asarray(labels.dataobj), turned.affine)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_the_result_does_not_depend_on_the_orientation_of_the_file(axes: str) -> None:
    expected, got = prepare_case(raw_case(), config()), prepare_case(raw_case(axes), config())
    assert nib.aff2axcodes(got.affine) == ("R", "A", "S")
    np.testing.assert_allclose(got.affine, expected.affine, atol=1e-6)
    np.testing.assert_array_equal(got.label, expected.label)
    np.testing.assert_allclose(got.image, expected.image, atol=1e-5)
    assert got.source["axes"] == axes


@settings(max_examples=20, deadline=None)
@given(
    axes=st.sampled_from(ORIENTATIONS),
    spacing=st.tuples(*[st.floats(0.8, 3)] * 3),
    voxel=st.none() | st.tuples(*[st.floats(0.4, 0.8)] * 3),
    margin=st.floats(0, 0.5),
)
def test_voxels_agree_with_nibabels_resampling(axes, spacing, voxel, margin) -> None:
    raw = raw_case(axes, spacing)
    done = prepare_case(raw, config(spacing=voxel, margin=margin, percentiles=(0, 100)))
    # nibabel resamples without smoothing, so only grids finer than the image compare.
    step = np.linalg.norm(done.affine[:3, :3], axis=0) / np.linalg.norm(
        nib.as_closest_canonical(nib.Nifti1Image(raw.image, raw.affine)).affine[:3, :3], axis=0
    )
    target = (GRID, done.affine)
    image = resample_from_to(
        nib.Nifti1Image(raw.image, raw.affine), target, order=1, mode="nearest"
    )
    label = resample_from_to(nib.Nifti1Image(raw.label, raw.affine), target, order=0)
    if (step <= 1).all():
        inside = done.image[8:-8, 8:-8, 8:-8]
        theirs = image.get_fdata()[8:-8, 8:-8, 8:-8]
        slope, intercept = np.polyfit(theirs.ravel(), inside.ravel(), 1)
        np.testing.assert_allclose(inside, slope * theirs + intercept, atol=2e-3)
    assert dice(done.label == 1, label.get_fdata() == 1) > 0.93
    assert dice(done.label == 2, label.get_fdata() == 2) > 0.85


@pytest.mark.parametrize("spacing", [None, (1.3, 1.3, 1.3)])
@pytest.mark.parametrize("axes", ["LAS", "PIR", "SAL"])
def test_a_marker_keeps_its_place_in_the_world(
    axes: str, spacing: tuple[float, ...] | None
) -> None:
    raw = raw_case(axes)
    image = np.zeros_like(raw.image)
    marker = tuple(n // 2 + 2 for n in image.shape)
    image[marker] = 1000
    done = prepare_case(
        RawCase(image, raw.label, raw.affine), config(spacing=spacing, percentiles=(0, 100))
    )
    weight = done.image / done.image.sum()
    centre = [float((weight * axis).sum()) for axis in np.indices(GRID)]
    there = nib.affines.apply_affine(done.affine, centre)
    assert np.linalg.norm(there - nib.affines.apply_affine(raw.affine, marker)) < 1.0


def test_the_exported_label_overlaps_the_original_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", affine=raw_case("LPS").affine)
    setting = DataConfig(source=str(folder), grid=GRID)
    sets = prepare(open_source(setting), setting, tmp_path / "sets")
    out = sets["test"].export_nifti(tmp_path / "out")
    id = sets["test"].ids[0]
    exported = nib.load(out / f"labelsTr/{id}.nii.gz")
    original = nib.load(folder / f"labelsTr/{id}.nii.gz")
    back = resample_from_to(exported, original, order=0).get_fdata()
    assert dice(back == 1, original.get_fdata() == 1) > 0.93
    assert dice(back == 2, original.get_fdata() == 2) > 0.85


def test_an_export_prepared_again_is_the_same(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    setting = DataConfig(source=str(folder), grid=GRID, spacing=(1.5, 1.2, 1.8))
    first = prepare(open_source(setting), setting, tmp_path / "first")["train"]
    again = setting.model_copy(
        update={"source": str(first.export_nifti(tmp_path / "out")), "percentiles": (0, 100)}
    )
    second = prepare(open_source(again), again, tmp_path / "second")
    for part in second.values():
        for i, id in enumerate(part.ids):
            k = first.ids.index(id)
            np.testing.assert_array_equal(part.label(i), first.label(k))
            np.testing.assert_allclose(part.image(i), first.image(k), atol=1e-3)
            np.testing.assert_allclose(part.cases[i].affine, first.cases[k].affine, atol=1e-4)


@pytest.mark.slow  # for the import of monai
def test_monai_reads_the_export_at_the_same_place(tmp_path: Path) -> None:
    from monai.data import load_decathlon_datalist
    from monai.transforms import LoadImage

    folder = write_folder(tmp_path / "in", affine=raw_case("LAS").affine)
    setting = DataConfig(source=str(folder), grid=GRID)
    train = prepare(open_source(setting), setting, tmp_path / "sets")["train"]
    out = train.export_nifti(tmp_path / "out")
    listed = load_decathlon_datalist(str(out / "dataset.json"), data_list_key="training")
    assert len(listed) == len(train)
    image = LoadImage(image_only=True)(listed[0]["image"])
    np.testing.assert_allclose(image.affine, train.cases[0].affine, atol=1e-4)
    np.testing.assert_array_equal(image.numpy(), train.image(0))


def test_padding_is_black_and_left_out_of_the_percentiles() -> None:
    raw = raw_case()
    bright = RawCase(raw.image + 10_000, raw.label, raw.affine)
    done = prepare_case(bright, config(grid=(64, 64, 64), spacing=(1.5, 1.5, 1.5)))
    mm = np.array([30 * 1.5, 36 * 1.0, 24 * 2.0])
    covered = np.prod(mm / 1.5) / 64**3
    assert 0.8 * covered < (done.image > 0).mean() <= 1.1 * covered
    assert not done.label[done.image == 0].any()
    assert np.isclose(np.median(done.image[done.label == 1]), 0.5, atol=0.2)


def test_a_cut_off_foreground_is_warned_of(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    setting = DataConfig(source=str(folder), grid=(32, 32, 32), spacing=(0.5, 1.0, 2.0))
    with pytest.warns(UserWarning, match=r"cuts off labelled voxels of 5 of 5 cases"):
        sets = prepare(open_source(setting), setting, tmp_path / "sets")
    assert 0.4 < sets["train"].cases[0].source["foreground_inside"] < 0.9


def test_scaling_is_the_percentile_range_clipped() -> None:
    image = np.arange(1001, dtype=np.float32).reshape(7, 11, 13)
    scaled = scale_to_unit(image, (10, 90))
    assert (scaled.min(), scaled.max()) == (0, 1)
    np.testing.assert_allclose(scaled.ravel()[[100, 500, 900]], [0, 0.5, 1], atol=1e-6)
    with pytest.raises(InputError, match=r"percentiles \(0, 50\) are both 3"):
        scale_to_unit(np.where(image > 900, image, 3).astype(np.float32), (0, 50))


def test_an_unusable_case_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    setting = DataConfig(source=str(folder), grid=(32, 32, 32))
    (folder / "labelsTr/case_003.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"labelsTr/case_003\.nii\.gz cannot be read"):
        prepare(open_source(setting), setting, tmp_path / "sets")


def test_preparing_twice_gives_equal_sets_and_says_what_it_did(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", n=6)
    setting = DataConfig(source=str(folder), grid=(32, 32, 32), patients=r"case_0*(\d+)")
    source = open_source(setting)
    steps: list[tuple[int, int]] = []
    first = prepare(source, setting, tmp_path / "a", lambda done, n: steps.append((done, n)))
    second = prepare(open_source(setting), setting, tmp_path / "b")
    assert {k: v.fingerprint for k, v in first.items()} == {
        k: v.fingerprint for k, v in second.items()
    }
    assert steps == [(i, 6) for i in range(1, 7)]
    assert sorted(id for part in first.values() for id in part.ids) == list(source.ids)
    train = first["train"]
    assert train.provenance["source"] == "ellipsoids"
    assert train.provenance["source_fingerprint"] == source.fingerprint
    assert DataConfig(**train.provenance["config"]) == setting
    assert train.cases[0].source["patient"] == str(int(train.ids[0].removeprefix("case_")))
    assert train.cases[0].source["shape"] == [30, 36, 24]
    assert train.cases[0].source["file"] == f"{train.ids[0]}.nii.gz"


def test_cases_held_out_are_a_set_of_their_own_and_change_no_other(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", n=10)
    setting = DataConfig(source=str(folder), grid=(32, 32, 32))
    plain = prepare(open_source(setting), setting, tmp_path / "plain")
    assert list(plain) == ["train", "val", "test"]
    holding = setting.model_copy(update={"holdout": 0.2})
    sets = prepare(open_source(holding), holding, tmp_path / "holding")
    assert list(sets) == ["train", "val", "test", "held"]
    for part in ("val", "test"):
        assert sets[part].fingerprint == plain[part].fingerprint
    assert len(sets["held"]) == 2
    assert sorted(sets["train"].ids + sets["held"].ids) == sorted(plain["train"].ids)
    assert sets["held"].has_labels
    assert sets["held"].provenance["part"] == "held"
    zero = setting.model_copy(update={"holdout": 0.0})
    none = prepare(open_source(zero), zero, tmp_path / "zero")
    assert {k: v.fingerprint for k, v in none.items()} == {
        k: v.fingerprint for k, v in plain.items()
    }


def test_results_come_in_order_and_only_a_few_are_held() -> None:
    lock, begun, taken, most = threading.Lock(), 0, 0, 0

    def work(id: str) -> str:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - taken)
        time.sleep(0.001 * (int(id) % 3))
        return id

    ids = [str(i) for i in range(200)]
    got = []
    for result in _in_order(work, ids, ahead=2):  # type: ignore[arg-type, type-var]
        with lock:
            taken += 1
        got.append(result)
    assert got == ids
    assert most <= 2 * 8 + 1


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VolumeSet]:
    setting = DataConfig(cases=4, grid=(32, 32, 32), seed=5)
    return prepare(open_source(setting), setting, tmp_path_factory.mktemp("phantom"))


def test_the_phantom_is_prepared_without_resampling(phantom: dict[str, VolumeSet]) -> None:
    from bench.datasets.phantom import phantom_case

    assert sum(map(len, phantom.values())) == 4
    train = phantom["train"]
    made = phantom_case(int(train.ids[0].split("-")[1]), 5, (32, 32, 32))
    np.testing.assert_array_equal(train.label(0), made.label)
    np.testing.assert_allclose(train.image(0), made.image, atol=1e-3)
    assert train.cases[0].spacing == pytest.approx(made.spacing)
    middle = nib.affines.apply_affine(np.array(train.cases[0].affine), [15.5] * 3)
    np.testing.assert_allclose(middle, 0, atol=1e-9)


def test_the_phantoms_fingerprint_follows_seed_grid_and_number() -> None:
    fields: list[dict[str, object]] = [{}, {"seed": 1}, {"cases": 5}, {"grid": (32, 32, 48)}]
    prints = [open_source(DataConfig(**f)).fingerprint for f in fields]
    assert len(set(prints)) == len(prints)
    assert open_source(DataConfig()).fingerprint == prints[0]


def test_the_phantom_takes_no_spacing_and_no_new_labels() -> None:
    with pytest.raises(InputError, match=r"data.spacing is \(1.0, 1.0, 1.0\)"):
        open_source(DataConfig(spacing=(1, 1, 1)))
    with pytest.raises(InputError, match=r"data.labels names the ids \[9\]"):
        open_source(DataConfig(labels={9: "spleen"}))
    merged = open_source(DataConfig(labels={2: "vein", 3: "vein"}))
    assert merged.label_names == {0: "background", 1: "liver", 2: "vein", 4: "HCC"}


def shared(name: str) -> str:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent; it is not part of the project")
    return str(DATA / name)


def test_chaos_livers_lie_on_the_patients_right(tmp_path: Path) -> None:
    setting = DataConfig(source=shared("chaos-t2-liver"), grid=(48, 48, 32), cases=4)
    for part in prepare(open_source(setting), setting, tmp_path).values():
        for i in range(len(part)):
            label = part.label(i)
            right = {
                n: np.argwhere(label == k).mean(axis=0)[0] for k, n in part.label_names.items()
            }
            assert right["liver"] > right["spleen"]
            assert right["right_kidney"] > right["left_kidney"]
            above = (
                np.argwhere(label == 1).mean(axis=0)[2] - np.argwhere(label == 2).mean(axis=0)[2]
            )
            assert above > 0


@pytest.mark.slow
def test_real_labels_survive_the_way_there_and_back(tmp_path: Path) -> None:
    for name, big in (("chaos-t2-liver", 1), ("msd-hippocampus", 1)):
        setting = DataConfig(source=shared(name), grid=(64, 64, 64), cases=4)
        for part in prepare(open_source(setting), setting, tmp_path / name).values():
            for i, id in enumerate(part.ids):
                original = nib.load(DATA / name / f"labelsTr/{id}.nii.gz")
                ours = nib.Nifti1Image(part.label(i), np.array(part.cases[i].affine))
                back = resample_from_to(ours, original, order=0).get_fdata()
                assert dice(back == big, original.get_fdata() == big) > 0.9
