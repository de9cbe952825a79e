"""Requirements that generators and segmenters share: who they are, and their configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.contract.requirement import Broken
from bench.errors import InputError

NO_SUCH_KEY = "no_plug_in_has_this_key"


def check_identity(registry: Any, name: str) -> None:
    """A version as text and a line that describes the plug-in."""
    version = getattr(registry.get(name), "version", "1")
    if not isinstance(version, str):
        raise Broken(f"the version is {version!r}, a {type(version).__name__}")
    if not registry.description(name).strip():
        raise Broken("there is no docstring")


def check_frozen(model: Any) -> None:
    """A pydantic model whose values stay as they are and that refuses unknown keys."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise Broken(f"Config is {model!r}, no pydantic model")
    for path, part in _models(model):
        if not part.model_config.get("frozen"):
            raise Broken(f"{path} can be changed after it was made: it is not frozen")
        if part.model_config.get("extra") != "forbid":
            raise Broken(f"{path} takes the unknown key {NO_SUCH_KEY} without a word")


def check_described(model: type[BaseModel]) -> None:
    """Every field has a default and a description."""
    for path, part in _models(model):
        for key, field in part.model_fields.items():
            at = f"{path}.{key}".removeprefix("Config.")
            if field.is_required():
                raise Broken(f"{at} has no default")
            if not field.description:
                raise Broken(f"{at} has no description")


def check_round_trip(model: type[BaseModel]) -> None:
    """What is stored with a run gives the same configuration again."""
    config = model()
    stored = config.model_dump(mode="json")
    try:
        again = model.model_validate(stored)
    except (ValidationError, InputError) as error:
        raise Broken(f"the stored defaults are refused: {' '.join(str(error).split())}") from error
    for key, value in config:
        if getattr(again, key) != value:
            raise Broken(f"{key} is {value!r} and comes back as {getattr(again, key)!r}")


def _models(model: type[BaseModel], path: str = "Config") -> Iterator[tuple[str, type[BaseModel]]]:
    """The model and all models that its fields hold by default, with their paths."""
    yield path, model
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from _models(type(default), f"{path}.{key}")
