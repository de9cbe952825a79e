"""Which plug-ins are to be checked, and the contract that each is held against."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contract.requirement import Finding, findings
from bench.errors import InputError, nearest
from bench.registry import EXTRACTORS, GENERATORS, SEGMENTERS, load_plugin

REGISTRIES = {"generator": GENERATORS, "segmenter": SEGMENTERS, "extractor": EXTRACTORS}


@dataclass(frozen=True)
class Plugin:
    """A plug-in to be checked."""

    kind: str  # of REGISTRIES
    name: str
    source: str  # distribution or file


def every_plugin() -> list[Plugin]:
    """All that are installed or loaded, without controls."""
    return [_plugin(kind, name) for kind, r in REGISTRIES.items() for name in r.names()]


def plugins_of(asked: str) -> list[Plugin]:
    """The plug-ins of a name, or of a file, which is imported.

    InputError if there are none.
    """
    path = Path(asked)
    if path.suffix == ".py" or path.is_file():
        load_plugin(path)
        found = [_plugin(k, name) for k, r in REGISTRIES.items() for name in r.names_of(path)]
        if not found:
            raise InputError(
                f"The plug-in file {path} defines no plug-in; use register_generator, "
                "register_segmenter or register_extractor of bench in it."
            )
        return found
    known = [(k, name) for k, r in REGISTRIES.items() for name in (*r.names(), *r.control_names())]
    found = [_plugin(kind, name) for kind, name in known if name == asked]
    if not found:
        names = [name for _, name in known]
        raise InputError(f"There is no plug-in {asked!r} to check: {nearest(asked, names)}")
    return found


def _plugin(kind: str, name: str) -> Plugin:
    return Plugin(kind, name, REGISTRIES[kind].origin(name).source)


def check(
    plugin: Plugin,
    folder: Path,
    files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    weights: Path | None = None,
    only: Collection[str] = (),
) -> Iterator[Finding]:
    """Hold a plug-in against its contract, one requirement after another.

    Args:
        plugin: is imported now.
        folder: for small phantoms, shared by the checks of several plug-ins, and for fits.
        files: plug-in files that another process must load first.
        settings: ``key=value`` of the plug-in's configuration.
        weights: of an extractor.
        only: names of requirements, which are checked with what they need; all by default.
    """
    from bench.contract.extractors import EXTRACTOR, ExtractorSubject
    from bench.contract.fits import DEVICE
    from bench.contract.generators import GENERATOR, GeneratorSubject
    from bench.contract.segmenters import SEGMENTER, SegmenterSubject

    DEVICE.use_threads()
    REGISTRIES[plugin.kind].get(plugin.name)
    if plugin.kind == "generator":
        generator = GeneratorSubject(plugin.name, folder, files, settings)
        yield from findings(generator, GENERATOR, only)
    elif plugin.kind == "segmenter":
        segmenter = SegmenterSubject(plugin.name, folder, files, settings)
        yield from findings(segmenter, SEGMENTER, only)
    else:
        extractor = ExtractorSubject(plugin.name, folder, files, weights)
        yield from findings(extractor, EXTRACTOR, only)
