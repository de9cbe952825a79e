"""Which feature extractor a run uses: decided once, before it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bench.config import ScoringConfig
from bench.errors import InputError
from bench.plan import ExtractorFacts
from bench.registry import EXTRACTORS
from metrics.extractors import PROTOCOLS

C = TypeVar("C", bound=type)

AUTO, PREFERRED, OFFLINE = "auto", "medicalnet", "texture"


def register_extractor(name: str) -> Callable[[C], C]:
    """Class decorator: make the extractor known under `name`; see `metrics.extractors`."""

    def register(cls: C) -> C:
        cls.name = name  # type: ignore[attr-defined]
        EXTRACTORS.register(name, cls)
        return cls

    return register


def decide_extractor(scoring: ScoringConfig) -> ExtractorFacts:
    """The extractor of the configuration, built once to see that its weights load.

    "auto" is MedicalNet where its weights are found, else the offline descriptor. InputError if an
    extractor lacks its weights, if they are another network's, or if it has not the preprocessing
    or protocol that was asked for.
    """
    path = None
    name = scoring.extractor
    try:
        if name == AUTO:
            from metrics.extractors.weights import find_weights

            path = find_weights(scoring.weights)
            name = PREFERRED if path else OFFLINE
        extractor = EXTRACTORS.get(name)
        check_contract(name, extractor)
        preprocess = _preprocessing(name, extractor, scoring.preprocess)
        _check_protocol(name, extractor, scoring.protocol)
        path = path or _weights(name, extractor, scoring.weights)
        sha256 = construct(name, extractor, path, preprocess).sha256
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    return ExtractorFacts(
        name=extractor.name,
        version=EXTRACTORS.version(name),
        preprocess=preprocess,
        sha256=sha256,
        path=str(path or ""),
        protocol=extractor.protocol,
        plugin=name,
    )


def build_extractor(facts: ExtractorFacts, device: str) -> Any:
    """The extractor that was decided on; ValueError if its weights are others by now."""
    plugin = EXTRACTORS.get(facts.plugin or facts.name)
    path = Path(facts.path) if facts.path else None
    extractor = plugin(weights=path, device=device, preprocess=facts.preprocess)
    if extractor.sha256 != facts.sha256:
        raise ValueError(
            f"The weights of {facts.name} ({facts.path or 'no file'}) have sha256 "
            f"{extractor.sha256 or 'none'}, but the run was planned with "
            f"{facts.sha256 or 'none'}; put those back or plan again."
        )
    return extractor


def check_contract(name: str, extractor: Any) -> None:
    """InputError if the class lacks what `metrics.extractors` asks of it, or has it otherwise."""
    wanted = ("name", "version", "protocol", "needs_weights", "preprocessings", "dim")
    missing = [key for key in wanted if not hasattr(extractor, key)]
    if missing:
        raise InputError(
            f"The extractor {name!r} has no {' and no '.join(missing)}; set these attributes of "
            "its class, see metrics.extractors."
        )
    for key, kind in (("name", str), ("version", str), ("needs_weights", bool)):
        value = getattr(extractor, key)
        if not isinstance(value, kind):
            raise InputError(
                f"The extractor {name!r} has the {key} {value!r} of the type "
                f"{type(value).__name__}; make it a {kind.__name__}, see metrics.extractors."
            )
    # A text is a sequence as well, of letters.
    known = extractor.preprocessings
    if not isinstance(known, tuple | list) or not all(isinstance(p, str) for p in known):
        raise InputError(
            f"The extractor {name!r} has the preprocessings {known!r}; make them a tuple of names."
        )
    if extractor.name in EXTRACTORS.reserved:
        raise InputError(
            f"The extractor {name!r} gives its name as {extractor.name!r}, which "
            f"{EXTRACTORS.reserved[extractor.name]}; rename it."
        )
    if extractor.protocol not in PROTOCOLS:
        raise InputError(
            f"The extractor {name!r} has the protocol {extractor.protocol!r}; use one of "
            f"{', '.join(PROTOCOLS)}."
        )


def construct(name: str, extractor: Any, path: Path | None, preprocess: str) -> Any:
    """The extractor on the CPU; a ValueError is its own sentence, all else becomes InputError."""
    try:
        built = extractor(weights=path, device="cpu", preprocess=preprocess)
    except ValueError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"The extractor {name!r} cannot be built: {type(error).__name__}: {text}; its class "
            "takes weights, device and preprocess, see metrics.extractors."
        ) from error
    sha256 = getattr(built, "sha256", None)
    if not isinstance(sha256, str) or not callable(built):
        raise InputError(
            f"The extractor {name!r} "
            + (
                "cannot be called; give its class the method __call__(self, volumes)"
                if isinstance(sha256, str)
                else f"has the sha256 {sha256!r}; make it that of its file of weights, or the "
                'empty text ""'
            )
            + ", see metrics.extractors."
        )
    return built


def _preprocessing(name: str, extractor: Any, asked: str) -> str:
    known = tuple(extractor.preprocessings)
    if asked and asked not in known:
        choice = f"use one of {', '.join(known)}" if known else "leave it empty"
        raise InputError(
            f"scoring.preprocess is {asked!r}, which the extractor {name} does not have; {choice}."
        )
    return asked or (known[0] if known else "")


def _check_protocol(name: str, extractor: Any, asked: str) -> None:
    if asked and asked != extractor.protocol:
        raise InputError(
            f"scoring.protocol is {asked}, but the extractor {name} works by {extractor.protocol}; "
            "leave it empty or choose another scoring.extractor."
        )


def _weights(name: str, extractor: Any, given: Path | None) -> Path | None:
    """The file of weights, found or given; InputError if it is needed and there is none."""
    if not extractor.needs_weights:
        if given is not None:
            raise InputError(
                f"The extractor {name} takes no weights, but {given} was given; leave out "
                "--weights or choose another scoring.extractor."
            )
        return None
    find = getattr(extractor, "find_weights", None)
    path: Path | None = find(given, allow_download=True) if find else given
    if path is None:
        raise InputError(f"The extractor {name} needs weights; give --weights PATH to their file.")
    return path
