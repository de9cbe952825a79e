"""Layouts of folders: patterns, what is refused in them, and that no path leaves its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nifti_folders import case, save, write_folder
from pydantic import ValidationError

from bench.datasets import DataConfig, open_source
from bench.datasets.layout import Layout
from bench.datasets.paths import inside, leaves
from bench.errors import InputError

AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])
PAIRS = {"image": "{site}/{case}/image.nii.gz", "label": "{site}/{case}/label_{case}.nii.gz"}
LABELS = {1: "big", 2: "small"}


def write_pairs(folder: Path, *ids: tuple[str, str]) -> Path:
    for k, (site, name) in enumerate(ids):
        image, label = case(k)
        save(folder / site / name / "image.nii.gz", image, AFFINE)
        save(folder / site / name / f"label_{name}.nii.gz", label, AFFINE)
    return folder


def config(folder: Path, **layout: Any) -> DataConfig:
    return DataConfig(source=str(folder), labels=LABELS, layout=Layout(**{**PAIRS, **layout}))


def test_placeholders_make_the_id_and_find_the_label(tmp_path: Path) -> None:
    write_pairs(tmp_path / "all", ("a", "1"), ("a", "2"), ("b", "1"), ("b/b", "3"))
    source = open_source(config(tmp_path / "all"))
    assert source.ids == ("a_1", "a_2", "b_3")  # b holds a folder b, which counts as b
    np.testing.assert_array_equal(source.load("a_2").image, case(1)[0])
    np.testing.assert_array_equal(source.load("a_2").label, case(1)[1])
    assert open_source(config(tmp_path / "all", match="a_.*")).ids == ("a_1", "a_2")


def test_stars_stand_for_anything_but_hidden_files(tmp_path: Path) -> None:
    write_pairs(tmp_path, ("a", "1"))
    (tmp_path / "a/1/._image.nii.gz").write_bytes(b"AppleDouble")
    assert open_source(config(tmp_path, image="{site}/{case}/*age.nii.gz")).ids == ("a_1",)
    with pytest.raises(InputError, match=r"case id 'a_1' stands for .* and .*tell them apart"):
        open_source(config(tmp_path, image="{site}/{case}/*.nii.gz"))
    with pytest.raises(InputError, match=r"case 'a_1' has the labels .*image.* and .*label_1"):
        open_source(config(tmp_path, label="{site}/{case}/*.nii.gz"))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"image": "../{case}.nii.gz"}, "leaves the folder"),
        ({"image": "/data/{case}.nii.gz"}, "leaves the folder"),
        ({"image": "C:/{case}.nii.gz"}, "leaves the folder"),
        ({"label": "x/../../{case}.nii.gz"}, "leaves the folder"),
        ({"label": None, "masks": {"a": ["..\\{case}"]}}, "leaves the folder"),
        ({"image": "scan.nii.gz"}, "has no {case}"),
        ({"label": "{Case}.nii.gz"}, "has braces around no word"),
        ({"label": "{patient}.nii.gz"}, r"has \['patient'\]"),
        ({"label": None}, "give one of label, masks and segments, not none"),
        ({"masks": {"a": ["{case}"]}}, r"not \['label', 'masks'\]"),
        ({"label": None, "masks": {"a": ["{case}"]}, "required": ["b"]}, r"required names \['b'\]"),
        ({"label": None, "masks": {"a": ["{case}"]}, "values": {"a": [1, 2]}}, "are of a label"),
        ({"values": {"a": [1, 9], "b": [9, 12]}}, "'a' and 'b' overlap at 9"),
        ({"values": {"a": [9, 1]}}, "9 to 1 of 'a' must rise"),
        ({"match": "("}, "not a regular expression"),
        ({"label": None, "segments": {"a": "("}}, "not a regular expression"),
    ],
)
def test_a_wrong_layout_is_refused(layout: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Layout(**{**PAIRS, **layout})


def test_labels_are_named_once(tmp_path: Path) -> None:
    write_pairs(tmp_path, ("a", "1"))
    with pytest.raises(InputError, match="name the labels twice, or not at all"):
        open_source(DataConfig(source=str(tmp_path), layout=Layout(**PAIRS)))
    with pytest.raises(InputError, match="name the labels twice"):
        open_source(config(tmp_path, values={"a": (1, 2)}))
    with pytest.raises(ValidationError, match="a layout is that of a folder"):
        DataConfig(layout=Layout(**PAIRS))


def test_a_folder_that_fits_nothing_shows_what_it_has(tmp_path: Path) -> None:
    write_pairs(tmp_path, ("a", "1"))
    with pytest.raises(InputError, match=r"matches layout.image 'x{case}': it begins with \['a'\]"):
        open_source(config(tmp_path, image="x{case}", label="{case}"))


@pytest.mark.parametrize("layout", [False, True])
@pytest.mark.parametrize("what", ["image", "label", "folder"])
def test_links_out_of_the_folder_are_followed_only_when_asked(
    tmp_path: Path, layout: bool, what: str
) -> None:
    if layout:
        folder = write_pairs(tmp_path / "set", ("a", "1"))
        inner = folder / {"folder": "a"}.get(
            what, f"a/1/{'image' if what == 'image' else 'label_1'}.nii.gz"
        )
        setting = config(folder)
    else:
        folder = write_folder(tmp_path / "set", n=1)
        part = "labelsTr" if what == "label" else "imagesTr"
        inner = folder / (part if what == "folder" else f"{part}/case_000.nii.gz")
        setting = DataConfig(source=str(folder))
    (tmp_path / "else").mkdir()
    outer = inner.rename(tmp_path / "else" / inner.name)
    inner.symlink_to(outer)
    with pytest.raises(InputError, match=r"is a link to .*else.*data\.links=true"):
        open_source(setting)
    followed = open_source(setting.model_copy(update={"links": True}))
    np.testing.assert_array_equal(followed.load(followed.ids[0]).image, case(0)[0])
    # What the folder itself is called, and links within it, are nobody's way out.
    inner.unlink()
    outer.rename(folder / "kept")
    inner.symlink_to(folder / "kept")
    (tmp_path / "name").symlink_to(folder)
    assert open_source(setting.model_copy(update={"source": str(tmp_path / "name")})).ids


@given(
    st.lists(st.sampled_from(["a", "..", ".", "", "b.nii"]), min_size=1, max_size=6),
    st.sampled_from("/\\"),
)
def test_no_name_leaves_the_folder(parts: list[str], slash: str) -> None:
    """Against the file system's own arithmetic."""
    name = slash.join(parts)
    folder = Path("/data/set")
    if leaves(name):
        with pytest.raises(InputError, match="which leaves the folder"):
            inside(folder, name, f"name {name!r}")
    else:
        end = Path(*folder.parts, *inside(folder, name, "name").relative_to(folder).parts).resolve()
        assert end.is_relative_to(folder)
        assert ".." not in parts
