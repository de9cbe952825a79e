"""Folders in layouts of their own: where images and labels lie, as patterns with {placeholders}."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from bench.datasets.paths import leaves
from bench.generator import Frozen

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
Grey = Annotated[int, Field(ge=0, le=65535)]


class Layout(Frozen):
    """Where the images and labels of a folder lie.

    A pattern is a path below the folder; `*` stands for any part of a name, `{case}` and other
    words in braces for the parts that tell cases apart. A folder that holds only a folder of its
    own name, as unpacking leaves it, counts as that.
    """

    image: str = Field(
        description="pattern of the images: NIfTI files, or folders that hold one DICOM series each"
    )
    match: str | None = Field(
        None,
        description="regular expression that a case's id matches as a whole, else the case is left "
        "out; the id is what the placeholders of image stand for, joined by _",
    )
    label: str | None = Field(
        None,
        description="pattern of the label maps: NIfTI files, folders of one DICOM series, or "
        "folders of PNG slices in the order of the image's files",
    )
    values: dict[str, tuple[Grey, Grey]] | None = Field(
        None,
        description="name -> first and last value of a label map that mean it; None: the "
        "values are the ids in labels",
    )
    masks: dict[str, tuple[str, ...]] | None = Field(
        None,
        description="instead of label: name -> patterns of files that are above 0 inside it, "
        "painted in this order, later ones over earlier ones",
    )
    segments: dict[str, str] | None = Field(
        None,
        description="instead of label: name -> regular expression of the SegmentLabels of the "
        "DICOM-SEG object in the image's folder, painted in this order",
    )
    required: tuple[str, ...] = Field(
        (), description="names of masks or segments that every case must have"
    )

    @field_validator("image", "label")
    @classmethod
    def _stays(cls, pattern: str | None) -> str | None:
        return None if pattern is None else _checked(pattern)

    @field_validator("masks")
    @classmethod
    def _masks_stay(
        cls, masks: dict[str, tuple[str, ...]] | None
    ) -> dict[str, tuple[str, ...]] | None:
        for patterns in (masks or {}).values():
            for pattern in patterns:
                _checked(pattern)
        return masks

    @field_validator("match")
    @classmethod
    def _expression(cls, rule: str | None) -> str | None:
        return rule if rule is None else _compiled(rule)

    @field_validator("segments")
    @classmethod
    def _expressions(cls, segments: dict[str, str] | None) -> dict[str, str] | None:
        for rule in (segments or {}).values():
            _compiled(rule)
        return segments

    @field_validator("values")
    @classmethod
    def _ranges(
        cls, values: dict[str, tuple[int, int]] | None
    ) -> dict[str, tuple[int, int]] | None:
        taken: list[tuple[int, int, str]] = []
        for name, (low, high) in (values or {}).items():
            if low > high:
                raise ValueError(f"the values {low} to {high} of {name!r} must rise")
            taken.append((low, high, name))
        taken.sort()
        for (_, high, one), (low, _, other) in pairwise(taken):
            if low <= high:
                raise ValueError(f"the values of {one!r} and {other!r} overlap at {low}")
        return values

    @model_validator(mode="after")
    def _one_kind_of_label(self) -> Layout:
        given = [k for k in ("label", "masks", "segments") if getattr(self, k)]
        if len(given) != 1:
            raise ValueError(f"give one of label, masks and segments, not {given or 'none'}")
        if self.values is not None and self.label is None:
            raise ValueError("values are of a label map; give label, or leave values out")
        wrong = sorted(set(self.required) - set(self.names or ()))
        if wrong:
            raise ValueError(f"required names {wrong}, which masks or segments do not have")
        known = set(_PLACEHOLDER.findall(self.image))
        if "case" not in known:
            raise ValueError(f"the image pattern {self.image!r} has no {{case}}")
        for pattern in self._label_patterns():
            unknown = sorted(set(_PLACEHOLDER.findall(pattern)) - known)
            if unknown:
                raise ValueError(f"{pattern!r} has {unknown}, which image does not have")
        return self

    @property
    def names(self) -> tuple[str, ...] | None:
        """Label names in the order of the ids 1, 2, ...; None where the files hold the ids."""
        named = self.masks or self.segments or self.values
        return None if named is None else tuple(named)

    def _label_patterns(self) -> Iterator[str]:
        yield from filter(None, [self.label])
        for patterns in (self.masks or {}).values():
            yield from patterns


def find_images(folder: Path, layout: Layout) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """Case id, image, and what its placeholders stand for."""
    for path, values in _walk(folder, PurePosixPath(layout.image).parts, {}):
        id = "_".join(values.values())
        if layout.match is None or re.fullmatch(layout.match, id):
            yield id, path, values


def find_files(folder: Path, pattern: str, values: Mapping[str, str]) -> list[Path]:
    """What `pattern` names for the case whose placeholders stand for `values`."""
    return [path for path, _ in _walk(folder, PurePosixPath(pattern).parts, values)]


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key of a file's name: image_2 before image_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]


def _walk(
    folder: Path, parts: tuple[str, ...], values: Mapping[str, str]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Paths below `folder` whose names match `parts`, with all placeholders' values."""
    folder = _undoubled(folder)
    if not parts:
        yield folder, dict(values)
        return
    part = _PLACEHOLDER.sub(lambda m: values.get(m[1], m[0]), parts[0])
    if not _PLACEHOLDER.search(part) and "*" not in parts[0]:
        if (folder / part).exists():
            yield from _walk(folder / part, parts[1:], values)
        return
    if not folder.is_dir():
        return
    rule = _rule(parts[0], values)
    for path in sorted(folder.iterdir(), key=natural):
        # Hidden files: macOS archives carry a "._case.nii.gz" beside every file.
        if not path.name.startswith(".") and (match := rule.fullmatch(path.name)):
            yield from _walk(path, parts[1:], {**values, **match.groupdict()})


def _rule(part: str, values: Mapping[str, str]) -> re.Pattern[str]:
    """One name's pattern as a regular expression with a group for each unknown placeholder."""
    expression, named = "", set()
    for k, piece in enumerate(_PLACEHOLDER.split(part)):
        if k % 2 == 0:
            expression += re.escape(piece).replace(r"\*", ".*")
        elif piece in values:
            expression += re.escape(values[piece])
        else:
            expression += f"(?P={piece})" if piece in named else f"(?P<{piece}>.+)"
            named.add(piece)
    return re.compile(expression)


def _undoubled(path: Path) -> Path:
    """`path`, or what lies in it under its own name, as unpacking an archive may leave it."""
    while (path / path.name).is_dir():
        path = path / path.name
    return path


def _checked(pattern: str) -> str:
    if not pattern or leaves(pattern):
        raise ValueError(f"the pattern {pattern!r} leaves the folder; give a path inside it")
    if set("{}") & set(_PLACEHOLDER.sub("", pattern)):
        raise ValueError(f"{pattern!r} has braces around no word of small letters such as {{case}}")
    return pattern


def _compiled(rule: str) -> str:
    try:
        re.compile(rule)
    except re.error as error:
        raise ValueError(f"{rule!r} is not a regular expression: {error}") from error
    return rule
