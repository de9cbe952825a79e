"""Tables as LaTeX: read back by a strict reader, and compiled where there is a LaTeX."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaderboard_cases import measured, named, two_by_two

from leaderboard import latex, page, tables
from leaderboard.blocks import Page
from leaderboard.text import TextTable

BACK = {
    **{f"\\{char}": char for char in "&%$#_{}"},
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textquotedbl{}": '"',
    "{[}": "[",
    "{]}": "]",
    "--": "–",
    "$-$": "−",
    r"$\pm$": "±",
    r"$\times$": "×",
    r"$\infty$": "∞",
    r"$\geq$": "≥",
    r"\ldots{}": "…",
}
TOKEN = re.compile("|".join(re.escape(key) for key in sorted(BACK, key=len, reverse=True)) + "|.")


@pytest.fixture(scope="module")
def made() -> Page:
    return page.page(measured().board(splits={"train": 12, "test": 8}))


def unescaped(text: str) -> str:
    """Printed text; AssertionError where a character would not print as itself."""
    parts = TOKEN.findall(text)
    assert "".join(parts) == text
    for part in parts:
        assert part in BACK or part not in set('&%$#_{}\\~^<>|"[]'), (part, text)
    return "".join(BACK.get(part, part) for part in parts)


def cells(line: str) -> list[str]:
    r"""Cells of a row: parted by an ampersand that is not ``\&``, without bold and underlines."""
    assert line.endswith(r" \\")
    texts = re.split(r"(?<!\\) & ", line[:-3])
    return [unescaped(re.sub(r"^\\(?:textbf|underline)\{(.*)\}$", r"\1", text)) for text in texts]


def body(text: str) -> list[list[str]]:
    r"""Rows below the first \midrule."""
    inside = text.split("\\toprule\n")[1].split("\\bottomrule")[0]
    lines = inside.split("\\midrule\n", 1)[1].splitlines()
    return [cells(line) for line in lines if line not in ("\\midrule", "\\endhead")]


def minus(text: str) -> str:
    return re.sub(r"(?<![\w.)])-(?=\d)", "−", text)


def test_every_table_is_a_file_with_its_rows_and_caption(made: Page) -> None:
    files = latex.files(made)
    assert set(files) == {f"{block.name}.tex" for block in made.tables} | {"tables.tex"}
    for block in made.tables:
        text = files[f"{block.name}.tex"]
        expected = [[minus(cell) for cell in row] for row in block.content.rows]
        assert body(text) == expected, block.name
        columns = re.search(r"\\begin\{(?:tabular|longtable)\}\{([lr]+)\}", text)
        assert columns
        assert len(columns[1]) == len(block.content.columns)
        assert text.count("\\label{tab:") == text.count("\\caption{") == 1
        told = "not comparable" if block.published else "preset quick; seed 0; extractor texture"
        assert told in text
        assert f"\\input{{{block.name}.tex}}" in files["tables.tex"]


def test_titles_in_two_lines_span_their_columns() -> None:
    board = two_by_two().board()
    (block, _) = tables.segmentation(board)
    text = latex.table(block, "t", "")
    assert r" & \multicolumn{3}{c}{liver} \\" in text
    assert r"\cmidrule(lr){2-4}" in text
    assert r"Segmenter & R & R+S & gain \% \\" in text
    # The overall mean is set apart, and bold as on the page.
    assert re.search(r"\\midrule\n\\textbf\{Overall mean\} & ", text)
    assert list(named(block).index) == ["VNet", "U-Net", "Overall mean"]


def test_a_long_table_may_run_over_pages() -> None:
    rows = tuple((f"g{i}", "1.0") for i in range(latex.LONG + 1))
    content = TextTable("Many", ("Generator", "FID"), rows)
    text = latex.table(content, "many", "n = 3")
    assert "\\begin{longtable}{lr}" in text
    assert body(text) == [list(row) for row in rows]
    assert "longtable" not in latex.table(TextTable("Few", ("G", "F"), rows[:3]), "few", "")


def test_a_wide_table_lies_on_its_side() -> None:
    wide, narrow = (TextTable("T", ("G", "F"), (("g", "1" * n),)) for n in (200, 20))
    many = replace(wide, rows=wide.rows * (latex.TALL + 1))
    assert "sideways" not in latex.table(many, "many", "n = 3")
    text = latex.table(wide, "wide", "n = 3")
    assert text.startswith("\\begin{sidewaystable}\n")
    assert text.endswith("\\end{sidewaystable}\n")
    assert latex.table(narrow, "narrow", "n = 3").startswith("\\begin{table}[htbp]\n")


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=40))
def test_any_text_survives(text: str) -> None:
    assert unescaped(latex.escape(text)) == minus(text).replace("--", "–")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
@pytest.mark.parametrize("wide", [latex.WIDE, 10])
def test_all_tables_compile(
    made: Page, tmp_path: Path, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latex, "WIDE", wide)
    for name, content in latex.files(made).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:].decode(errors="replace")
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
