"""The data configuration, its command-line argument, and the tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bench.datasets import DataConfig, Task, builtin_datasets, default_tasks, tasks_of
from bench.datasets import read_data_argument as read
from bench.datasets.labels import merge_names
from bench.datasets.ready import ready_names
from bench.errors import InputError

PAPER = {0: "background", 1: "liver", 2: "portal vein", 3: "hepatic vein", 4: "HCC"}
ORGANS = {0: "background", 1: "liver", 2: "right kidney", 7: "spleen"}


def test_every_field_is_described() -> None:
    assert all(field.description for field in DataConfig.model_fields.values())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("grid", (64, 40, 64), "40"),
        ("grid", (16, 32, 32), "16"),
        ("spacing", (1, 0, 1), "0"),
        ("percentiles", (99, 1), "99"),
        ("split", (0.8, 0.1, 0.2), "0.8"),
        ("split", (0.9, 0.1, 0.0), "0.0"),
        ("labels", {300: "liver"}, "300"),
        ("patients", "case_(", "case_\\("),
        ("patients", "case_1", "0 groups"),
        ("cases", 2, "greater than or equal to 3"),
        ("margin", -0.1, "greater than or equal to 0"),
        ("grids", (32, 32, 32), "grids"),
    ],
)
def test_a_wrong_value_is_refused_with_the_value(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig(**{field: value})


def test_data_argument_of_a_name_and_a_folder(tmp_path: Path) -> None:
    assert read("phantom") == {"source": "phantom"}
    assert read(str(tmp_path)) == {"source": str(tmp_path)}


def test_yaml_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("source: scans\ngrid: [32, 32, 48]\nlabels: {1: liver}\n")
    fields = read(str(tmp_path / "my.yaml"))
    config = DataConfig(**fields)
    assert config.source == str(tmp_path / "scans")
    assert config.grid == (32, 32, 48)
    assert config.labels == {1: "liver"}
    # A YAML file as the source itself is the same; values given beside it win.
    beside = DataConfig(source=str(tmp_path / "my.yaml"), grid=(64, 64, 64))
    assert beside == config.model_copy(update={"grid": (64, 64, 64)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sorce: x", "unknown field 'sorce': did you mean source"),
        ("zzz: 1", "unknown field 'zzz': known are source, "),
        ("source: [1", "not valid YAML"),
        ("just text", "holds 'just text'"),
        ("source: 3", "has source 3"),
        ("source: other.yaml", "has source 'other.yaml'"),
    ],
)
def test_a_wrong_yaml_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read(str(path))
    assert str(path) in str(caught.value)


def test_a_data_argument_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data 'phantm'"):
        read("phantm")
    with pytest.raises(InputError, match=r"none\.yaml cannot be read \(No such file"):
        read(str(tmp_path / "none.yaml"))


def test_ids_of_one_name_are_merged_and_background_is_dropped() -> None:
    names, table = merge_names({0: "none", 1: "liver", 2: "kidney", 3: "kidney", 4: "background"})
    assert names == {0: "background", 1: "liver", 2: "kidney"}
    np.testing.assert_array_equal(table[np.arange(6)], [0, 1, 2, 2, 0, 0])


def test_the_papers_labels_have_the_papers_tasks() -> None:
    tasks = default_tasks(PAPER)
    assert {name: task.classes for name, task in tasks.items()} == {
        "liver-only": {"liver": (1, 2, 3, 4)},
        "vein-only": {"vein": (2, 3)},
        "hcc-only": {"HCC": (4,)},
        "multi-class": {"portal vein": (2,), "hepatic vein": (3,), "HCC": (4,)},
    }


def test_other_labels_have_a_task_each_and_together() -> None:
    tasks = default_tasks(ORGANS)
    assert list(tasks) == [
        "foreground",
        "liver-only",
        "right-kidney-only",
        "spleen-only",
        "multi-class",
    ]
    assert tasks["foreground"].classes == {"foreground": (1, 2, 7)}
    assert tasks["multi-class"].class_names == ("liver", "right kidney", "spleen")
    assert list(default_tasks({0: "background", 1: "lesion"})) == ["foreground"]


def test_labels_with_names_alike_have_tasks_of_their_own() -> None:
    tasks = default_tasks({1: "A b", 2: "a-b", 3: "µ"})
    assert sorted(
        t.classes[c] for t in tasks.values() for c in t.classes if len(t.classes) == 1
    ) == [
        (1,),
        (1, 2, 3),
        (2,),
        (3,),
    ]


def test_a_task_maps_labels_to_consecutive_classes() -> None:
    task = Task(name="t", classes={"spleen": (7,), "kidneys": (2, 3)})
    label = np.array([[0, 1, 2], [3, 7, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(task.apply(label), [[0, 0, 2], [2, 1, 0]])
    assert task.apply(label).dtype == np.uint8
    assert task.out_channels == 3


def test_configured_tasks_replace_the_default_ones() -> None:
    config = DataConfig(tasks={"two": {"both": ["liver", "spleen"]}})
    assert tasks_of(config, ORGANS) == {"two": Task(name="two", classes={"both": (1, 7)})}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"t": {"a": ["livr"]}}, r"Task 't' uses the labels \['livr'\]"),
        ({"a/b": {"a": ["liver"]}}, "Task 'a/b' .*the task name 'a/b'"),
        ({"t": {"a": ["liver"], "b": ["liver"]}}, "label 1 is in both 'a' and 'b'"),
        ({"t": {"a": []}}, "the class 'a' has no labels"),
        ({"t": {}}, "Task 't' .* at least 1 item"),
        ({"t": {"a": ["background"]}}, r"\['background'\]"),
    ],
)
def test_a_wrong_task_is_refused(tasks: dict[str, dict[str, list[str]]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tasks_of(DataConfig(tasks=tasks), ORGANS)


def test_listing_data_sets_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bench.datasets import builtin_datasets; builtin_datasets();"
        "print({'torch', 'monai', 'scipy', 'nibabel'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
    named = [name for name, _ in builtin_datasets()]
    ready = [f"{name}=FOLDER" for name in ready_names()]
    assert named == ["phantom", "FOLDER", "FILE.yaml", *ready]
