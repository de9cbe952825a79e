"""Plug-ins by name: entry points of installed distributions, and files given by ``--plugin``.

Nothing is imported until a plug-in is used: ``names`` and ``describe`` read the entry points and
the source text alone.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """Where a plug-in comes from."""

    name: str
    source: str  # "voxelbench 0.1.0" or a file
    target: str  # "generators.ddpm:DDPM3D"


class Registry(Generic[T]):
    """Plug-ins of one kind."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._loaded: dict[str, T] = {}
        self._files: dict[str, Path] = {}
        self._importing: Path | None = None

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        """Entry points by name; a name claimed by two distributions is refused with both."""
        found: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self.group):
            known = found.get(entry.name)
            if known is not None and (known.value != entry.value):
                raise InputError(
                    f"The {self.kind} {entry.name!r} is defined twice, by {_distribution(known)} "
                    f"({known.value}) and by {_distribution(entry)} ({entry.value}); uninstall or rename one."
                )
            found[entry.name] = entry
        return found

    def names(self) -> list[str]:
        """Every known name, those of entry points first."""
        return [*self._entries, *(n for n in self._loaded if n not in self._entries)]

    def origin(self, name: str) -> Origin:
        """Where `name` comes from, without importing it."""
        if name in self._files:
            return Origin(name, str(self._files[name]), self._files[name].stem)
        if name in self._entries:
            entry = self._entries[name]
            return Origin(name, _distribution(entry), entry.value)
        return Origin(name, "this process", _identity(self.get(name))[0])

    def get(self, name: str) -> T:
        """The plug-in `name`, imported now; InputError with the nearest names if it is unknown."""
        if name not in self._loaded:
            if name not in self._entries:
                raise InputError(self._unknown(name))
            entry = self._entries[name]
            try:
                loaded = entry.load()
            except Exception as error:
                raise InputError(
                    f"The {self.kind} {name!r} of {_distribution(entry)} ({entry.value}) cannot be "
                    f"imported: {type(error).__name__}: {error}; mend or uninstall it."
                ) from error
            self._loaded.setdefault(name, loaded)
        return self._loaded[name]

    def register(self, name: str, plugin: T) -> None:
        """Called by the decorators when a plug-in's module is imported."""
        known = self._loaded.get(name)
        entry = self._entries.get(name)
        module, _ = _identity(plugin)
        stranger = entry is not None and not f"{module}.".startswith(f"{entry.module}.")
        if stranger or (known is not None and _identity(known) != _identity(plugin)):
            first = self.origin(name)
            raise InputError(
                f"The {self.kind} {name!r} is defined twice, by {first.source} ({first.target}) "
                f"and by {self._importing or module}; rename one."
            )
        self._loaded[name] = plugin
        if self._importing is not None:
            self._files[name] = self._importing

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(self.names())}."
        return f"There is no {self.kind} {name!r}: {hint}"

    def description(self, name: str) -> str:
        """First line of the plug-in's docstring, read from its source; a reason if that fails."""
        if name in self._files:
            path: Path | None = self._files[name]
            attribute = None
        else:
            entry = self._entries[name]
            attribute = entry.attr
            path = _source(entry.module)
            if path is None:
                return f"cannot be imported: there is no module {entry.module}"
        try:
            return _docstring(path, attribute) if path else ""
        except (SyntaxError, OSError) as error:
            return f"cannot be imported: {type(error).__name__}: {error}"


def _identity(plugin: Any) -> tuple[str, str]:
    made = getattr(plugin, "build", plugin)
    return made.__module__, made.__qualname__


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed distribution"


def _source(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _docstring(path: Path, attribute: str | None) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    text = ast.get_docstring(tree) or ""
    for node in tree.body:
        named = isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute
        if named and ast.get_docstring(node):
            text = ast.get_docstring(node) or ""
    return text.split("\n", 1)[0]


GENERATORS: Registry[Any] = Registry("generator", "bench.generators")
SEGMENTERS: Registry[Any] = Registry("segmenter", "bench.segmenters")
DATASETS: Registry[Any] = Registry("data set", "bench.datasets")


def load_plugin(path: Path) -> None:
    """Import a plug-in file; its decorators register what it defines."""
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"The plug-in file {path} does not exist; give the path of a Python file.")
    spec = importlib.util.spec_from_file_location(f"voxelbench_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"The plug-in file {path} is not a Python file; give one that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    registries = (GENERATORS, SEGMENTERS)
    for registry in registries:
        registry._importing = path
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"The plug-in file {path} cannot be imported: {type(error).__name__}: {error}; mend it.") from error
    finally:
        for registry in registries:
            registry._importing = None
