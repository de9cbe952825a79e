"""The configuration of a data set, and the `--data` argument that sets it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from bench.datasets.layout import Layout
from bench.datasets.ready import read_ready, ready_names
from bench.errors import InputError, nearest
from bench.generator import Frozen
from metrics.segmentation import Kind

PHANTOM = "phantom"
PHANTOM_CASES = 40
HOLDOUT = 0.2
"""`DataConfig.holdout` where it is not set and a control needs it: as large as the test split."""
_YAML = (".yaml", ".yml")


class DataConfig(Frozen):
    """A data set and how it is prepared; every value can be set in a YAML file."""

    source: str = Field(
        PHANTOM,
        description='"phantom", a folder in the layout of the Medical Segmentation Decathlon or '
        "that layout describes, or a YAML file with these fields (values given beside it win)",
    )
    name: str | None = Field(
        None, description="what the tables call the data set; None: its own name, or its folder's"
    )
    layout: Layout | None = Field(
        None,
        description="where images and labels lie in a folder without dataset.json, see "
        "docs/datasets.md",
    )
    links: bool = Field(
        False, description="follow symbolic links that lead out of the data set's folder"
    )
    cases: int | None = Field(
        None,
        ge=3,
        description=f"how many cases at most; None: {PHANTOM_CASES} phantoms, or all of a folder; "
        "N of a folder are the first N in an order drawn with the seed",
    )
    grid: tuple[int, int, int] = Field(
        (64, 64, 64),
        description="voxels along right, anterior, superior; each a multiple of 16, at least 32",
    )
    spacing: tuple[float, float, float] | None = Field(
        None,
        description="voxel size in mm; None: the box around the foreground is grown to the grid's "
        "shape where the image allows and stretched where it does not",
    )
    margin: float = Field(
        0.1, ge=0, le=2, description="added around the foreground, as a fraction of each side"
    )
    percentiles: tuple[float, float] = Field(
        (0.5, 99.5), description="intensity percentiles of the crop that become 0 and 1"
    )
    split: tuple[float, float, float] = Field(
        (0.7, 0.1, 0.2), description="fractions of the patients for train, val and test"
    )
    holdout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="fraction of the patients taken out of the training split for the controls "
        f"that draw real cases; None: {HOLDOUT} where such a control is run on data that are not "
        "the phantom, else 0",
    )
    seed: int = Field(0, ge=0, description="of the phantom, the choice of cases and the split")
    labels: dict[int, str] | None = Field(
        None,
        description="label id -> name, instead of the data set's own; ids of one name are merged, "
        'ids named "background" are dropped',
    )
    tasks: dict[str, dict[str, list[str]]] | None = Field(
        None,
        description="task -> class -> label names, e.g. vein-only: {vein: [portal vein, hepatic "
        "vein]}; None: tasks derived from the labels",
    )
    kinds: dict[str, Kind] | None = Field(
        None,
        description='label name -> "organ", "vessel" or "lesion": vessels are scored by clDice as '
        "well, lesions one by one; labels not named here go by their names (a vein is a vessel, "
        "HCC a lesion)",
    )
    patients: str | None = Field(
        None,
        description="regular expression whose one group is the patient's id within a case's id; "
        "None: every case is its own patient",
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_yaml(cls, values: Any) -> Any:
        source = values.get("source") if isinstance(values, dict) else None
        if isinstance(source, str) and Path(source).suffix.lower() in _YAML:
            given = {key: value for key, value in values.items() if key != "source"}
            return {**_read_yaml(Path(source)), **given}
        return values

    @model_validator(mode="after")
    def _layout_of_a_folder(self) -> DataConfig:
        if self.layout is not None and self.source == PHANTOM:
            raise ValueError("a layout is that of a folder; give the folder as source")
        return self

    @field_validator("grid")
    @classmethod
    def _sides(cls, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(side < 32 or side % 16 for side in grid):
            raise ValueError(f"the sides {grid} must be multiples of 16 and at least 32")
        return grid

    @field_validator("spacing")
    @classmethod
    def _positive(cls, spacing: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if spacing is not None and not all(0 < mm < 1000 for mm in spacing):
            raise ValueError(f"the voxel sizes {spacing} must be above 0 mm and below 1000 mm")
        return spacing

    @field_validator("percentiles")
    @classmethod
    def _rising(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        low, high = percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"the percentiles {percentiles} must rise within 0 and 100")
        return percentiles

    @field_validator("split")
    @classmethod
    def _fractions(cls, split: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(split) <= 0 or abs(sum(split) - 1) > 1e-6:
            raise ValueError(f"the fractions {split} must be above 0 and add up to 1")
        return split

    @field_validator("labels")
    @classmethod
    def _label_ids(cls, labels: dict[int, str] | None) -> dict[int, str] | None:
        wrong = sorted(label for label in labels or {} if not 0 <= label <= 255)
        if wrong:
            raise ValueError(f"the label ids {wrong} must lie in 0 to 255")
        return labels

    @field_validator("patients")
    @classmethod
    def _one_group(cls, rule: str | None) -> str | None:
        try:
            groups = re.compile(rule).groups if rule is not None else 1
        except re.error as error:
            raise ValueError(f"{rule!r} is not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"{rule!r} has {groups} groups; enclose the patient's id in one (...)")
        return rule


def read_data_argument(value: str) -> dict[str, Any]:
    """The fields of `DataConfig` that ``--data VALUE`` sets.

    VALUE is "phantom", a folder in the Decathlon layout, a ready data set and its folder as in
    3d-ircadb-01=FOLDER, or a YAML file of fields; a relative `source` in a YAML file is taken from
    the file's own folder.

    Raises:
        InputError: VALUE is none of them, or the YAML file is broken or has unknown fields.
    """
    path = Path(value)
    if value == PHANTOM:
        return {"source": PHANTOM}
    name, _, folder = value.partition("=")
    if name in ready_names() and not path.exists():
        if not folder:
            raise InputError(
                f"--data {value!r} needs the folder of the data set: give {name}=FOLDER; bench "
                f"data get {name} says how to get it."
            )
        return {**read_ready(name).data, "source": str(Path(folder).expanduser())}
    if path.suffix.lower() in _YAML:
        return _read_yaml(path)
    if path.is_dir():
        return {"source": value}
    raise InputError(
        f'--data {value!r} is neither "phantom" nor an existing folder nor a YAML file nor '
        f"NAME=FOLDER of a ready data set ({', '.join(ready_names())}); give one of these."
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The data file {path} cannot be read ({error.strerror}); give an existing YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The data file {path} is not valid YAML: {reason}; mend it.") from error
    if not isinstance(fields, dict):
        raise InputError(
            f"The data file {path} holds {fields!r}; give fields such as source: FOLDER."
        )
    for key in fields:
        _check_field(path, str(key))
    return _relative_to_file(path, fields)


def _check_field(path: Path, key: str) -> None:
    known = list(DataConfig.model_fields)
    if key not in known:
        raise InputError(
            f"The data file {path} has the unknown field {key!r}: {nearest(key, known)}"
        )


def _relative_to_file(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    source = fields.get("source", PHANTOM)
    if not isinstance(source, str) or Path(source).suffix.lower() in _YAML:
        raise InputError(f'The data file {path} has source {source!r}; give "phantom" or a folder.')
    if source == PHANTOM:
        return {**fields, "source": source}
    return {**fields, "source": str(path.parent / Path(source).expanduser())}
