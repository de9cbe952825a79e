"""Kinds of structures: by name, by configuration, and of a task's classes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bench.config import RunConfig
from bench.datasets import DataConfig, Task, default_tasks, tasks_of
from bench.datasets.tasks import kind_of
from bench.errors import InputError
from bench.plan import _data_spec
from metrics.segmentation import Kind

PAPER = {0: "background", 1: "liver", 2: "portal vein", 3: "hepatic vein", 4: "HCC"}


def test_the_papers_tasks_have_their_kinds() -> None:
    kinds = {name: task.class_kinds for name, task in default_tasks(PAPER).items()}
    assert kinds == {
        "liver-only": ("organ",),  # holds veins and carcinoma, but is more
        "vein-only": ("vessel",),
        "hcc-only": ("lesion",),
        "multi-class": ("vessel", "vessel", "lesion"),
    }
    assert tasks_of(DataConfig(), PAPER) == default_tasks(PAPER)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("liver", "organ"),
        ("Anterior", "organ"),
        ("right ventricle", "organ"),
        ("Vessel", "vessel"),
        ("hepaticvein", "vessel"),
        ("Pulmonary_Arteries", "vessel"),
        ("splenic artery", "vessel"),
        ("non-enhancing tumor", "lesion"),
        ("Tumour", "lesion"),
        ("colon cancer primaries", "lesion"),
        ("liver metastases", "lesion"),
        ("hepatocellular carcinoma", "lesion"),
        ("portal vein tumour thrombus", "lesion"),
    ],
)
def test_common_names_suggest_a_kind(name: str, kind: Kind) -> None:
    assert kind_of(name) == kind


def test_configured_kinds_win_over_names() -> None:
    config = DataConfig(kinds={"liver": "lesion", "portal vein": "organ"})
    tasks = tasks_of(config, PAPER)
    assert tasks["liver-only"].class_kinds == ("organ",)  # its labels are of several kinds
    assert tasks["vein-only"].class_kinds == ("organ",)
    assert tasks["multi-class"].kinds == {
        "portal vein": "organ",
        "hepatic vein": "vessel",
        "HCC": "lesion",
    }


def test_default_tasks_of_other_labels_have_kinds() -> None:
    names = {1: "lung", 2: "nodule", 3: "airway"}
    tasks = tasks_of(DataConfig(kinds={"nodule": "lesion", "airway": "vessel"}), names)
    assert tasks["foreground"].class_kinds == ("organ",)
    assert tasks["nodule-only"].class_kinds == ("lesion",)
    assert tasks["multi-class"].class_kinds == ("organ", "lesion", "vessel")
    alone = tasks_of(DataConfig(), {0: "background", 1: "lesion"})
    assert alone["foreground"].class_kinds == ("lesion",)


def test_configured_tasks_have_kinds() -> None:
    config = DataConfig(tasks={"t": {"dark": ["portal vein", "HCC"], "veins": ["hepatic vein"]}})
    assert tasks_of(config, PAPER)["t"].kinds == {"dark": "organ", "veins": "vessel"}


def test_a_class_without_a_kind_is_an_organ() -> None:
    task = Task(name="t", classes={"a": (1,), "b": (2,)}, kinds={"b": "vessel"})
    assert task.class_kinds == ("organ", "vessel")
    assert Task.model_validate(task.model_dump(mode="json")) == task
    assert Task(name="t", classes={"a": (1,)}).class_kinds == ("organ",)


def test_wrong_kinds_are_refused() -> None:
    with pytest.raises(InputError, match=r"names the label 'portal vien'.*mean portal vein"):
        tasks_of(DataConfig(kinds={"portal vien": "vessel"}), PAPER)
    with pytest.raises(InputError, match="'background', which the data set does not have"):
        tasks_of(DataConfig(kinds={"background": "organ"}), PAPER)
    with pytest.raises(ValidationError, match="'organ', 'vessel' or 'lesion'"):
        DataConfig(kinds={"liver": "tube"})
    with pytest.raises(ValidationError, match="the kind of 'c' is given, which is not a class"):
        Task(name="t", classes={"a": (1,)}, kinds={"c": "vessel"})


def test_kinds_do_not_change_the_prepared_volumes() -> None:
    plain, named = (
        _data_spec(RunConfig(data=DataConfig(kinds=kinds))) for kinds in (None, {"liver": "vessel"})
    )
    assert plain == named
