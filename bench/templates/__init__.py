"""Plug-ins to begin with: `bench new` copies one of these files under a name of your own."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path

from bench.errors import InputError
from bench.registry import GENERATORS, SEGMENTERS

FOLDER = Path(__file__).parent
REGISTRIES = {"generator": GENERATORS, "segmenter": SEGMENTERS}
PLACEHOLDERS = ("my-plugin", "MyPlugin", "my_plugin")
"""In the templates: the plug-in's name, its class, and its function or file."""


def write_plugin(kind: str, name: str, folder: Path) -> Path:
    """Write the template of `kind` as the plug-in `name` into a new file of `folder`.

    Args:
        kind: "generator" or "segmenter".
        name: of the plug-in.
        folder: is made if need be.

    Returns:
        The file, folder/name_with_underscores.py.

    Raises:
        InputError: no plug-in can have this name, one has it already, or the file exists.
    """
    registry = REGISTRIES[kind]
    if why := registry.name_fault(name):
        raise InputError(f"The name {name!r} {why}; give another one.")
    if name in (*registry.names(), *registry.control_names()):
        raise InputError(
            f"There is a {kind} {name!r} already, of {registry.origin(name).source}; give another "
            "name."
        )
    text = (FOLDER / f"{kind}.py").read_text(encoding="utf-8")
    identifier, class_name = _identifiers(name, text)
    for placeholder, own in zip(PLACEHOLDERS, (name, class_name, identifier), strict=True):
        text = text.replace(placeholder, own)
    path = folder / f"{identifier}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise InputError(f"{path} exists already; give another name or another --out.") from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}; give another --out."
        ) from error
    return path


def _identifiers(name: str, text: str) -> tuple[str, str]:
    """Names of the function or file and of the class, which are nothing else in Python or `text`.

    A file torch.py would be imported in torch's place, a class Sample would hide the harness's.
    """
    words = [word for word in re.split(r"[._-]+", name) if word]
    taken = {*keyword.kwlist, *re.findall(r"\w+", text)} - set(PLACEHOLDERS)
    while True:
        identifier = "_".join(words)
        class_name = "".join(word[:1].upper() + word[1:] for word in words)
        free = not taken & {identifier, class_name, f"{class_name}Config"}
        if free and identifier.isidentifier() and find_spec(identifier) is None:
            return identifier, class_name
        words = ["plugin", *words]
