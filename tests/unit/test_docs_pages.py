"""What the site's pages are made with: comparing examples, generated references."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, Ran

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SAID = ["[1/2] prepare 0.3 s, 4 s left", "FID 147.76 [97, 194], 8 volumes"]


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("examples")


@pytest.fixture
def reference_pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("reference_pages")


@pytest.mark.parametrize(
    "printed",
    [
        ["[1/2] prepare 12.5 s, 61 min left", "FID 3.2 [-1, 9.5], 8 volumes"],
        ["[1/2] prepare 0.3 s, 4 s", "left", "FID   147.76 [97, 194], 8 volumes"],
    ],
    ids=["other digits", "other line breaks"],
)
def test_what_differs_between_machines_is_not_compared(
    examples: ModuleType, printed: list[str]
) -> None:
    assert examples.agree(SAID, printed)


@pytest.mark.parametrize(
    "printed",
    [
        [SAID[0], "FID 147.76 [97, 194], 9 volumes"],
        [SAID[0], "KID 147.76 [97, 194], 8 volumes"],
        [SAID[0], "FID – [97, 194], 8 volumes"],
        SAID[:1],
        [*SAID, "1 cell failed"],
    ],
    ids=["a count", "a word", "no number", "a line less", "a line more"],
)
def test_what_is_said_is_compared(examples: ModuleType, printed: list[str]) -> None:
    assert not examples.agree(SAID, printed)


def test_dots_stand_for_any_lines_and_stay_when_a_page_is_renewed(examples: ModuleType) -> None:
    printed = ["a 1.5", "b", "c", "d 2.5", "e"]
    assert examples.agree(["a 1.0", "...", "d 2.0", "e"], printed)
    assert examples.renewed(["a 1.0", "...", "d 2.0", "e"], printed) == [
        "a 1.5",
        "...",
        *printed[3:],
    ]
    assert examples.renewed(["...", "e"], printed) == ["...", "e"]
    assert not examples.agree(["...", "x", "..."], printed)
    with pytest.raises(examples.Different, match="x"):
        examples.renewed(["...", "x", "..."], printed)


PAGE = """# Page

```text title="a.txt"
one
two
```

```console
$ cat \\
    a.txt
one
three
```
"""


def test_a_page_is_run_in_order_and_a_lie_is_named(
    examples: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(examples.Different, match=r"page\.md, line 8: cat"):
        examples.run_page(page, examples.in_process_of_its_own)
    text = examples.run_page(page, examples.in_process_of_its_own, renew=True)
    assert text == PAGE.replace("three", "two")
    page.write_text(text)
    examples.run_page(page, examples.in_process_of_its_own)


def test_the_page_of_commands_has_what_help_says(
    reference_pages: ModuleType, bench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = reference_pages.commands()
    for name in re.findall(r"^## bench (\S+)$", page, re.MULTILINE):
        section = page.split(f"## bench {name}\n")[1].split("\n## ")[0]
        told = _OPTION.findall(bench(name, "--help").out)
        assert set(_OPTION.findall(section)) == set(told) - {"--help"}, name
    assert "## bench run" in page


def test_the_page_of_keys_has_what_list_says(
    reference_pages: ModuleType, bench: Callable[..., Ran]
) -> None:
    page = reference_pages.configuration()
    for name in ("run", "engine"):
        listed = re.findall(r"^( *)([a-z_]+):", bench("list", name).out, re.MULTILINE)
        listed = listed[1:]  # the title
        keys = set(re.findall(r"^\| `(?:[a-z_]+\.)*([a-z_]+)` \|", page, re.MULTILINE))
        assert {key for _, key in listed} <= keys
    assert "| `data.grid` |" in page
    assert "| `segmentation.training.steps` |" in page
