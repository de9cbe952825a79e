"""Plug-ins by name: found without an import, refused with a reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.registry import EXTRACTORS, GENERATORS, SEGMENTERS, Registry, load_plugin

GENERATOR = '''"""{text}"""
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from bench import Generator, GeneratorConfig, register_generator

@dataclass
class Part:
    size: Literal[1, 2] = 1

class Config(GeneratorConfig):
    kind: Literal["a", "b"] = "a"

@register_generator("{name}")
class Mine(Generator):
    Config = Config
    def sample(self, indices, run):
        yield from ()
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """`package("dist", {"a": "toy_a.module:X"}, {"toy_a/module.py": "..."})`: a stranger."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(
        name: str, entries: dict[str, str], files: dict[str, str], group: str = "toy.group"
    ) -> Path:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    yield install
    for module in set(sys.modules) - before:
        if module.startswith("toy_"):
            del sys.modules[module]


@pytest.fixture
def registry() -> Registry[Any]:
    return Registry("toy", "toy.group", controls="toy.controls")


def plugin_file(folder: Path, name: str, stem: str = "mine", text: str = "My model.") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.py"
    path.write_text(GENERATOR.format(name=name, text=text))
    return path


def test_the_five_and_five_of_the_distribution_itself() -> None:
    assert {"ha-gan", "3d-ddpm", "ldm-vqvae", "ldm-vae", "3d-lldm"} <= set(GENERATORS.names())
    assert {"unet", "resunet", "wideresunet", "dynunet", "vnet"} <= set(SEGMENTERS.names())
    assert SEGMENTERS.origin("unet").source.startswith("voxelbench ")
    assert SEGMENTERS.get("unet").name == "unet"


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no segmenter 'unett'.*did you mean unet"):
        SEGMENTERS.get("unett")
    with pytest.raises(InputError, match=r"no generator 'zzzzzzzz'.*known are .*ha-gan"):
        GENERATORS.get("zzzzzzzz")


def test_two_distributions_with_one_name_are_refused_with_both(
    package: Callable[..., Path], registry: Registry[Any]
) -> None:
    package("first", {"same": "toy_first:X"}, {})
    package("second", {"same": "toy_second:X"}, {})
    with pytest.raises(InputError) as caught:
        registry.names()
    for origin in ("first 1.0", "toy_first:X", "second 1.0", "toy_second:X", "'same'"):
        assert origin in str(caught.value)


def test_a_file_that_claims_a_builtin_name_is_refused_with_both(tmp_path: Path) -> None:
    path = plugin_file(tmp_path, "ha-gan")
    with pytest.raises(InputError) as caught:
        load_plugin(path)
    for origin in ("'ha-gan'", "voxelbench ", "generators.ha_gan:HAGAN", str(path)):
        assert origin in str(caught.value)


def test_two_files_of_one_stem_that_claim_one_name_are_refused_with_both(tmp_path: Path) -> None:
    first, second = (plugin_file(tmp_path / place, "mine") for place in ("a", "b"))
    load_plugin(first)
    load_plugin(first)  # given twice is no conflict
    with pytest.raises(InputError) as caught:
        load_plugin(second)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


CONTROL = GENERATOR.replace('("{name}")', '("{name}", control=True)')


def test_a_control_is_found_by_name_and_is_no_part_of_all(tmp_path: Path) -> None:
    before = GENERATORS.names(), GENERATORS.control_names()
    path = tmp_path / "theirs.py"
    path.write_text(CONTROL.format(name="my-control", text="My control."))
    load_plugin(path)
    assert (GENERATORS.names(), GENERATORS.control_names()) == (
        before[0],
        [*before[1], "my-control"],
    )
    assert GENERATORS.get("my-control").control
    assert GENERATORS.description("my-control") == "My control."
    assert GENERATORS.is_control("oracle")
    assert not GENERATORS.is_control("ha-gan")
    assert not GENERATORS.get("ha-gan").control
    with pytest.raises(InputError, match=r"no generator 'my-contrl': did you mean my-control"):
        GENERATORS.get("my-contrl")
    with pytest.raises(InputError, match=r"no generator 'orcale': did you mean oracle"):
        GENERATORS.get("orcale")


def test_what_builds_on_a_control_is_none_unless_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from bench import register_generator\n"
        "from generators.controls.oracle import Oracle\n"
        "@register_generator('competitor')\n"
        "class Competitor(Oracle):\n    pass\n"
    )
    load_plugin(path)
    assert "competitor" in GENERATORS.names()
    assert "oracle" in GENERATORS.control_names()


@pytest.mark.parametrize(
    ("text", "name"), [(CONTROL, "ha-gan"), (GENERATOR, "oracle"), (CONTROL, "oracle")]
)
def test_a_control_and_a_generator_share_no_name(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text.format(name=name, text="Mine."))
    with pytest.raises(InputError, match=rf"'{name}' is defined twice, by voxelbench .* {path}"):
        load_plugin(path)


@pytest.mark.parametrize("name", ["all", "none", "controls", "real", "", " "])
def test_words_that_mean_something_else_are_no_names(tmp_path: Path, name: str) -> None:
    """ "real" is the floor's row: a generator of that name would be mixed with it."""
    with pytest.raises(InputError, match=rf"'{name}' of .*mine.py .* rename it"):
        load_plugin(plugin_file(tmp_path, name))


@pytest.mark.parametrize("name", ["auto", "task", "all", ""])
def test_an_extractor_is_not_named_like_what_a_run_means_by_the_word(name: str) -> None:
    with pytest.raises(InputError, match=rf"extractor '{name}' of .* rename it"):
        EXTRACTORS.register(name, object)
    if name in ("auto", "task"):  # other kinds may be
        SEGMENTERS.register(name, type("Segmenter", (), {}))


@pytest.mark.parametrize("group", ["toy.group", "toy.controls"])
@pytest.mark.parametrize("name", ["real", "none"])
def test_an_entry_point_of_a_reserved_name_is_refused(
    package: Callable[..., Path], group: str, name: str
) -> None:
    registry: Registry[Any] = Registry(
        "toy", "toy.group", controls="toy.controls", reserved={"real": "is the floor"}
    )
    package("odd", {name: "toy_reserved:X"}, {}, group)
    with pytest.raises(InputError, match=rf"toy '{name}' of odd 1.0 \(toy_reserved:X\).* rename"):
        registry.names()


def test_a_version_that_is_no_text_is_refused(registry: Registry[Any]) -> None:
    registry.register("x", type("X", (), {"version": 2}))
    with pytest.raises(
        InputError, match=r"toy 'x' has the version 2 of the type int; .* version = \"2\""
    ):
        registry.version("x")


def test_entry_points_tell_controls_without_an_import(
    package: Callable[..., Path], registry: Registry[Any]
) -> None:
    package("models", {"model": "toy_models:X"}, {})
    package("tests", {"easy": "toy_tests:X", "hard": "toy_tests:Y"}, {}, "toy.controls")
    assert registry.names() == ["model"]
    assert registry.control_names() == ["easy", "hard"]
    assert registry.origin("hard").source == "tests 1.0"


def test_an_entry_point_of_a_control_shadows_no_generator(
    package: Callable[..., Path], registry: Registry[Any]
) -> None:
    package("models", {"same": "toy_models:X"}, {})
    package("tests", {"same": "toy_models:X"}, {}, "toy.controls")
    with pytest.raises(InputError, match=r"'same' is defined twice, by models 1.0 .* tests 1.0"):
        registry.names()


@pytest.mark.parametrize(
    ("group", "flag"), [("toy.group", True), ("toy.controls", False)], ids=["model", "control"]
)
def test_an_entry_point_in_the_wrong_group_is_refused(
    package: Callable[..., Path], registry: Registry[Any], group: str, flag: bool
) -> None:
    source = f"class X:\n    Config = int\n    control = {flag}\n"
    package("odd", {"x": "toy_wrong:X"}, {"toy_wrong.py": source}, group)
    with pytest.raises(InputError, match=rf"'x' of odd 1.0 .* {group}, .* control={flag}"):
        registry.get("x")


def test_a_file_is_a_module_like_any_other(tmp_path: Path) -> None:
    path = plugin_file(tmp_path, "mine", text="My model.")
    load_plugin(path)
    assert GENERATORS.get("mine").Config(kind="b").kind == "b"
    assert GENERATORS.description("mine") == "My model."
    assert GENERATORS.origin("mine").source == str(path)
    assert "mine" in GENERATORS.names()


def test_a_file_that_builds_on_a_builtin_does_not_own_it(tmp_path: Path) -> None:
    path = tmp_path / "wide.py"
    path.write_text(
        "from bench import register_segmenter\n"
        "from segmenters.unet import UNetConfig, build_unet\n"
        "@register_segmenter('wide', UNetConfig)\n"
        "def wide(i, o, size, config):\n"
        "    return build_unet(i, o, size, config, 'wide')\n"
    )
    for module in [m for m in sys.modules if m.startswith("segmenters")]:
        del sys.modules[module]
    SEGMENTERS._loaded.clear()
    load_plugin(path)
    assert SEGMENTERS.origin("wide").source == str(path)
    assert SEGMENTERS.origin("unet").source.startswith("voxelbench ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import not_installed_anywhere", "ModuleNotFoundError.*not_installed_anywhere"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(4)", "SystemExit: 4"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"broken\.py cannot be imported: {reason}"):
        load_plugin(path)


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.py does not exist"):
        load_plugin(tmp_path / "nothing.py")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"notes\.txt is not a Python file"):
        load_plugin(tmp_path / "notes.txt")


def test_a_description_imports_nothing(
    package: Callable[..., Path], registry: Registry[Any]
) -> None:
    source = '"""Module."""\nclass X:\n    """What X is.\n\n    More."""\nraise RuntimeError\n'
    package("good", {"x": "toy_good.m:X"}, {"toy_good/__init__.py": "", "toy_good/m.py": source})
    assert registry.description("x") == "What X is."
    assert "toy_good.m" not in sys.modules
    assert registry.origin("x").source == "good 1.0"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "toy_bad"),
        ({"toy_bad/__init__.py": "", "toy_bad/m.py": "def ("}, "SyntaxError"),
        ({"toy_bad/__init__.py": "raise RuntimeError('old')", "toy_bad/m.py": ""}, "old"),
        ({"toy_bad/__init__.py": "", "toy_bad/m.py": "import absent_lib.x"}, "absent_lib"),
        ({"toy_bad/__init__.py": "", "toy_bad/m.py": "from absent_lib import x"}, "absent_lib"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_described_by_its_reason(
    package: Callable[..., Path], registry: Registry[Any], files: dict[str, str], reason: str
) -> None:
    package("bad", {"x": "toy_bad.m:X"}, files)
    assert registry.names() == ["x"]
    description = registry.description("x")
    assert description.startswith("cannot be imported: ")
    assert reason in description
    with pytest.raises(InputError, match=r"'x' of bad 1.0 \(toy_bad.m:X\) cannot be imported"):
        registry.get("x")


def test_an_entry_point_to_something_else_is_refused(
    package: Callable[..., Path], registry: Registry[Any]
) -> None:
    package("odd", {"x": "toy_odd:X"}, {"toy_odd.py": "X = 5"})
    with pytest.raises(InputError, match=r"'x' of odd 1.0 .* int without Config"):
        registry.get("x")


def test_a_package_may_reexport_its_plugin(
    package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GENERATOR.format(name="reexported", text="Model.")
    package(
        "tidy",
        {},
        {"toy_tidy/__init__.py": "", "toy_tidy/api.py": "", "toy_tidy/model.py": model},
    )
    entry = EntryPoint("reexported", "toy_tidy.api:Mine", "bench.generators")
    monkeypatch.setitem(GENERATORS.__dict__, "_entries", {"reexported": entry})
    (Path(sys.path[0]) / "toy_tidy" / "api.py").write_text("from toy_tidy.model import Mine\n")
    assert GENERATORS.get("reexported").name == "reexported"


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "segmenters"], ["run", "-h"]])
def test_asking_what_there_is_imports_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from bench.cli.main import main\n"
        f"sys.argv = ['bench', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'monai', 'scipy', 'pandas', 'matplotlib', 'lightning_fabric'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stderr == "[]\n"
    assert len(ran.stdout) > 100
