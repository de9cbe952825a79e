"""Plug-ins by name: entry points of installed distributions, and files given by ``--plugin``.

Controls are generators of known quality. They are found like all others, in an entry-point group
of their own, and are never part of what "all" means.

Nothing is imported until a plug-in is used: ``names`` and ``describe`` read the entry points and
the source text alone.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.errors import InputError, nearest
from metrics.extractors import TASK_NAME

T = TypeVar("T")

RESERVED = {
    "": "can be asked for by nobody",
    **dict.fromkeys(("all", "none", "controls"), "means several of them"),
}
"""Names that no plug-in may have, and why; the registry of a kind adds its own."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a name may be: it becomes part of paths, commands, pages and tables."""


@dataclass(frozen=True)
class Origin:
    """Where a plug-in comes from."""

    name: str
    source: str  # "voxelbench 0.1.0" or a file
    target: str  # "generators.ddpm:DDPM3D"


class Registry(Generic[T]):
    """Plug-ins of one kind; `mark` is an attribute that each of them has.

    They come from the entry-point group `group`, and controls from the group `controls`.
    `reserved` are names that this kind may not have beside `RESERVED`, and why.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        mark: str = "Config",
        controls: str | None = None,
        reserved: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self.controls = controls
        self.mark = mark
        self.reserved = {**RESERVED, **(reserved or {})}
        self._loaded: dict[str, T] = {}
        self._files: dict[str, Path] = {}
        self._importing: Path | None = None

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        """Entry points by name; a name claimed twice, also by a control, is refused with both.

        So is a name that none may have.
        """
        found: dict[str, EntryPoint] = {}
        groups = (self.group, *([self.controls] if self.controls else []))
        for entry in (entry for group in groups for entry in entry_points(group=group)):
            if self.name_fault(entry.name):  # to name a distribution takes a look at its files
                self._refuse_name(entry.name, f"{_distribution(entry)} ({entry.value})")
            known = found.get(entry.name)
            if known is not None and (known.value, known.group) != (entry.value, entry.group):
                raise InputError(
                    f"The {self.kind} {entry.name!r} is defined twice, by {_distribution(known)} "
                    f"({known.value}) and by {_distribution(entry)} ({entry.value}); uninstall "
                    "or rename one."
                )
            found[entry.name] = entry
        return found

    def names(self) -> list[str]:
        """Every known name that is no control, those of entry points first."""
        return [name for name in self._known() if not self.is_control(name)]

    def control_names(self) -> list[str]:
        """Every known control, those of entry points first."""
        return [name for name in self._known() if self.is_control(name)]

    def is_control(self, name: str) -> bool:
        """Whether `name` is a control, without importing it."""
        if name in self._entries:
            return self._entries[name].group == self.controls
        return _registered_as_control(self._loaded.get(name))

    def _known(self) -> list[str]:
        return [*self._entries, *(n for n in self._loaded if n not in self._entries)]

    def origin(self, name: str) -> Origin:
        """Where `name` comes from, without importing it."""
        if name in self._files:
            return Origin(name, str(self._files[name]), self._files[name].stem)
        if name in self._entries:
            entry = self._entries[name]
            return Origin(name, _distribution(entry), entry.value)
        return Origin(name, "this process", _identity(self.get(name))[0])

    def version(self, name: str) -> str:
        """What stands for the plug-in's code in keys: its declared version, and a file's sha256."""
        declared = getattr(self.get(name), "version", "1")
        if not isinstance(declared, str):
            raise InputError(
                f"The {self.kind} {name!r} has the version {declared!r} of the type "
                f'{type(declared).__name__}; write it as text: version = "{declared}".'
            )
        return "+".join([declared, *self.file_version(name)])

    def file_version(self, name: str) -> list[str]:
        """sha256 of the --plugin file that defines `name`; empty for an installed plug-in.

        Such a file is in the making: changed, it must not find the results of what it was.
        """
        if name not in self._files:
            return []
        return [hashlib.sha256(self._files[name].read_bytes()).hexdigest()]

    def names_of(self, path: Path) -> list[str]:
        """The plug-ins that a --plugin file defines, once it is loaded."""
        return [name for name, file in self._files.items() if file == path.resolve()]

    def get(self, name: str) -> T:
        """The plug-in `name`, imported now; InputError with the nearest names if it is unknown."""
        if name not in self._loaded:
            if name not in self._entries:
                raise InputError(self._unknown(name))
            entry = self._entries[name]
            try:
                loaded = entry.load()
            except (Exception, SystemExit) as error:
                raise InputError(
                    f"The {self.kind} {name!r} of {_distribution(entry)} ({entry.value}) cannot be "
                    f"imported: {type(error).__name__}: {error}; mend or uninstall it."
                ) from error
            if not hasattr(loaded, self.mark):
                raise InputError(
                    f"The {self.kind} {name!r} of {_distribution(entry)} ({entry.value}) is a "
                    f"{type(loaded).__name__} without {self.mark}; register it with the decorator "
                    "of bench."
                )
            if _registered_as_control(loaded) != self.is_control(name):
                raise InputError(
                    f"The {self.kind} {name!r} of {_distribution(entry)} ({entry.value}) is an "
                    f"entry point of {entry.group}, but is registered with control="
                    f"{_registered_as_control(loaded)}; controls belong in {self.controls}, and "
                    "only they."
                )
            self._loaded.setdefault(name, loaded)
        return self._loaded[name]

    def register(self, name: str, plugin: T) -> None:
        """Called by the decorators when a plug-in's module is imported."""
        self._refuse_name(name, str(self._importing or _identity(plugin)[0]))
        known = self._loaded.get(name)
        entry = self._entries.get(name)
        module, _ = _identity(plugin)
        # An entry point may name a package that re-exports what one of its modules defines.
        stranger = entry is not None and module.split(".")[0] != entry.module.split(".")[0]
        if stranger or (known is not None and _identity(known) != _identity(plugin)):
            first = self.origin(name)
            raise InputError(
                f"The {self.kind} {name!r} is defined twice, by {first.source} ({first.target}) "
                f"and by {self._importing or module}; rename one."
            )
        self._loaded[name] = plugin
        # A plug-in file may import a built-in one, which is not the file's own.
        if self._importing is not None and module == _module_name(self._importing):
            self._files[name] = self._importing

    def _refuse_name(self, name: str, source: str) -> None:
        why = self.name_fault(name)
        if why:
            raise InputError(
                f"The {self.kind} {name!r} of {source} has a name that {why}; rename it."
            )

    def name_fault(self, name: str) -> str:
        """Why no plug-in may have this name; "" if it may."""
        why = self.reserved.get(name.strip(), "")
        if not why and not NAME.fullmatch(name):
            why = (
                "is not made of at most 64 letters, digits, dots, hyphens and underscores, the "
                "first a letter or digit"
            )
        return why

    def _unknown(self, name: str) -> str:
        controls = self.control_names()
        known = [*self.names(), *controls, *(["controls"] if controls else [])]
        return f"There is no {self.kind} {name!r}: {nearest(name, known)}"

    def description(self, name: str) -> str:
        """First line of the plug-in's docstring, read from its source; a reason if that fails."""
        if name not in self._entries:
            own = getattr(self._loaded[name], "build", self._loaded[name]).__doc__
            if own is None and name in self._files:
                return _docstring(self._files[name], None)
            return (own or "").strip().split("\n", 1)[0]
        entry = self._entries[name]
        try:  # finding a module imports the packages above it
            spec = importlib.util.find_spec(entry.module)
            if spec is None or spec.origin is None:
                return f"cannot be imported: there is no module {entry.module}"
            return _docstring(Path(spec.origin), entry.attr)
        except (Exception, SystemExit) as error:
            return f"cannot be imported: {type(error).__name__}: {error}"


def _registered_as_control(plugin: Any) -> bool:
    return bool(getattr(plugin, "control", False))


def _identity(plugin: Any) -> tuple[str, str]:
    made = getattr(plugin, "build", plugin)
    return made.__module__, made.__qualname__


def _distribution(entry: EntryPoint) -> str:
    return _told(entry.dist) if entry.dist else "an unnamed distribution"


@cache
def _told(distribution: Distribution) -> str:
    """Name and version: kept, since each look parses the distribution's metadata."""
    return f"{distribution.name} {distribution.version}"


def _docstring(path: Path, attribute: str | None) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    missing = _missing_import(tree)
    if missing:
        return f"cannot be imported: there is no module {missing}"
    text = ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            text = ast.get_docstring(node) or text
    return text.split("\n", 1)[0]


def _missing_import(tree: ast.Module) -> str | None:
    """A package that the module imports first thing and that is not installed."""
    for node in tree.body:
        named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named = [node.module]
        for package in (name.split(".")[0] for name in named):
            if package not in sys.modules and importlib.util.find_spec(package) is None:
                return package
    return None


def _module_name(path: Path) -> str:
    """Name of a plug-in file's module; two files of one name in two folders differ."""
    return f"voxelbench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


GENERATORS: Registry[Any] = Registry(
    "generator",
    "bench.generators",
    controls="bench.controls",
    reserved={"real": "stands for the real volumes in every table"},
)
SEGMENTERS: Registry[Any] = Registry("segmenter", "bench.segmenters")
EXTRACTORS: Registry[Any] = Registry(
    "extractor",
    "bench.extractors",
    mark="preprocessings",
    reserved={
        "auto": "leaves the choice to the run",
        TASK_NAME: "stands for the features of the run's own labeller",
    },
)


def plugin_files() -> tuple[Path, ...]:
    """The files whose plug-ins this process knows, for another that is to know the same."""
    files = (registry._files.values() for registry in (GENERATORS, SEGMENTERS, EXTRACTORS))
    return tuple(dict.fromkeys(file for each in files for file in each))


def load_plugin(path: Path) -> None:
    """Import a plug-in file; its decorators register what it defines."""
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"The plug-in file {path} does not exist; give the path of a Python file.")
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or spec.loader is None:
        raise InputError(
            f"The plug-in file {path} is not a Python file; give one that ends in .py."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pydantic look up annotations
    registries = (GENERATORS, SEGMENTERS, EXTRACTORS)
    for registry in registries:
        registry._importing = path
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"The plug-in file {path} cannot be imported: {type(error).__name__}: {error}; mend it."
        ) from error
    finally:
        for registry in registries:
            registry._importing = None
