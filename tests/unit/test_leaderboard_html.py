"""The page as one HTML file: the numbers of the Markdown, hostile text as text, no network."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from leaderboard_cases import Made, measured, parsed
from page_cases import GRID, Reader, pictures, volume
from PIL import Image

from leaderboard import write
from leaderboard.figures.stills import PLANES, tile
from leaderboard.pictures import Pictures, Row, upright
from leaderboard.sprites import (
    Fineness,
    across,
    coarse_image,
    fineness,
    image_sheet,
    label_sheet,
    sheet,
)

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A leaderboard with all tables, figures and pictures."""
    folder = tmp_path_factory.mktemp("page")
    made = measured().board(segmenters=("unet", "vnet"), splits={"train": 12, "test": 8})
    write(made, folder, pictures())
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "leaderboard.html").read_text(encoding="utf-8")


def test_html_has_the_tables_of_the_markdown(folder: Path, html: str) -> None:
    from_markdown = parsed((folder / "leaderboard.md").read_text(encoding="utf-8"))
    from_html = Reader(html).tables
    assert len(from_html) == len(from_markdown) > 15
    for ours, theirs in zip(from_html, from_markdown, strict=True):
        rows = [row for row in ours if len(row) == len(theirs[0])]
        assert rows[-len(theirs) + 1 :] == theirs[1:]
        # Titles: whole, or in two lines the first of which spans several columns.
        titles = " ".join(cell for row in ours[: -len(theirs) + 1] for cell in row).split()
        assert set(titles) == {word for title in theirs[0] for word in title.split()}


def test_every_caption_says_what_fixes_the_numbers(html: str) -> None:
    captions = re.findall(r'<p class="note basis" id="[^"]*">(.*?)</p>', html)
    assert len(captions) == len(Reader(html).tables)
    own = [text for text in captions if "not comparable" not in text]
    assert len(own) == len(captions) - 2  # the published tables
    for part in ("phantom", "12 train, 8 test", "preset quick", "seed 0", "texture", "pseudo"):
        assert all(part in text for text in own), part


def test_the_floor_and_the_overall_mean_stay_below(html: str) -> None:
    last = re.findall(r'<tbody class="last">\s*<tr><th[^>]*>(?:<strong>)?([^<]*)', html)
    assert last.count("Overall mean") == 4
    assert last.count("real training volumes (floor)") >= 3


def test_text_of_users_shows_as_text(tmp_path: Path) -> None:
    made = Made(dataset=HOSTILE)
    made.fid(HOSTILE, (1.0, 2.0, 3.0), label_source=HOSTILE)
    made.dice({"a": 0.5, "b": 0.6}, segmenter=HOSTILE, task=HOSTILE)
    made.dice({"a": 0.6, "b": 0.8}, HOSTILE, HOSTILE, HOSTILE)
    made.cell("fit", HOSTILE, status="failed", reason=f"{HOSTILE} & \"quoted\" 'so'")
    board = made.board(notes=(HOSTILE,), splits={HOSTILE: 3}, extractor=HOSTILE)
    shown = pictures(HOSTILE)
    write(
        board, tmp_path, Pictures(shown.rows, shown.changes, {HOSTILE: shown.curves["alpha: fit"]})
    )
    text = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    found = Reader(text)
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert "<script>alert" not in text.split("<body>")[1]
    assert found.text.count(HOSTILE) > 20
    assert f"{HOSTILE} & \"quoted\" 'so'" in found.text
    assert not [name for _, attributes in found.elements for name in attributes if name[:2] == "on"]


def test_nothing_is_loaded_and_only_our_script_may_run(html: str) -> None:
    found = Reader(html)
    addresses = [
        attributes[name]
        for _, attributes in found.elements
        for name in ("src", "href", "action", "srcset", "data")
        if name in attributes
    ]
    assert len(addresses) > 30
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in html
    assert "@import" not in html
    (policy,) = (a["content"] for t, a in found.elements if a.get("http-equiv"))
    script = html.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_every_figure_is_told_in_words_and_lies_beside_the_page(folder: Path, html: str) -> None:
    images = [a for tag, a in Reader(html).elements if tag == "img" and "hidden" not in a]
    assert len(images) >= 6
    assert all(len(image["alt"]) > 10 for image in images)
    for name in ("fid", "dice", "gains", "dose", "curves", "segmenter-curves"):
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        png = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        assert png in html, name
        assert f"({name}.png)" in (folder / "leaderboard.md").read_text()


def test_links_of_the_contents_lead_somewhere(html: str) -> None:
    elements = Reader(html).elements
    ids = [a["id"] for _, a in elements if "id" in a]
    links = [a["href"][1:] for tag, a in elements if tag == "a"]
    assert len(set(ids)) == len(ids)
    assert set(links) <= set(ids)
    assert len(links) > 20


def test_a_page_without_pictures_has_no_viewer(tmp_path: Path) -> None:
    made = Made()
    made.score("memorise", "g", {"near_copies": 0.5})  # no figure either
    write(made.board(), tmp_path)
    text = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert "viewer-" not in text
    assert not (tmp_path / "volumes.png").exists()
    assert "volumes.png" not in (tmp_path / "leaderboard.md").read_text()


# Sheets and stills


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def slices_of(picture: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """(S, A, R) of a sheet, cut as the page's script does."""
    r, a, s = grid
    columns = across(s)
    at = [(z // columns * a, z % columns * r) for z in range(s)]
    return np.stack([picture[top : top + a, left : left + r] for top, left in at])


def test_a_sheet_holds_every_slice_upright() -> None:
    labels = volume(0).labels["labels"]
    found = slices_of(opened(label_sheet(labels, Fineness())), GRID)
    np.testing.assert_array_equal(found, upright(labels))
    assert labels[9, 0, 3] == found[14 - 1 - 3, 12 - 1, 0]  # the patient's right, posterior
    image = np.random.default_rng(0).integers(0, 255, GRID).astype(np.uint8)
    np.testing.assert_array_equal(slices_of(sheet(image), GRID), upright(image))


def test_an_image_loses_little_and_coarse_ones_are_means() -> None:
    image = volume(0).image
    found = slices_of(opened(image_sheet(image, Fineness())), GRID)
    assert np.abs(found.astype(int) - upright(image)).mean() < 3
    coarse = coarse_image(image, 4)
    assert coarse.shape == (2, 3, 3)
    assert coarse[0, 0, 0] == round(image[:4].mean())
    assert opened(label_sheet(volume(0).labels["labels"], Fineness(4))).shape == (6, 4)


def test_sheets_become_coarser_until_they_fit() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(3):
        noise = rng.integers(0, 255, (32, 32, 32)).astype(np.uint8)
        one = volume(i)
        rows.append(Row("noise", (type(one)("n", noise, (1.0, 1.0, 1.0), {}),), ()))
    shown = Pictures(rows=tuple(rows))
    assert fineness(shown, 10**9) == Fineness()
    budgets = [60_000, 40_000, 8_000]
    chosen = [fineness(shown, budget) for budget in budgets]
    for budget, how in zip(budgets, chosen, strict=True):
        sizes = [len(image_sheet(row.volumes[0].image, how)) for row in rows]
        assert sum(sizes) <= budget
    assert chosen[-1].every > chosen[0].every


@pytest.mark.parametrize("plane", PLANES)
def test_a_tile_is_in_millimetres_with_contours_inside_their_class(plane: str) -> None:
    one = volume(0)
    labels = one.labels["labels"]
    axis = PLANES[plane]
    middle = upright(labels).shape[axis] // 2
    shown = tile(one, labels, axis, middle)
    mm = {"axial": (12, 20), "coronal": (21, 20), "sagittal": (21, 12)}[plane]
    assert shown.shape[0] / shown.shape[1] == pytest.approx(mm[0] / mm[1], rel=0.02)
    coloured = (shown != shown[..., :1]).any(axis=2)
    plain = tile(one, None, axis, middle)
    assert not (plain != plain[..., :1]).any()
    classes = np.take(upright(labels), middle, axis=axis)
    fine = np.repeat(np.repeat(classes, 50, axis=0), 50, axis=1)
    rows = (np.arange(shown.shape[0]) + 0.5) * len(fine) / shown.shape[0]
    columns = (np.arange(shown.shape[1]) + 0.5) * fine.shape[1] / shown.shape[1]
    inside = fine[rows.astype(int)[:, None], columns.astype(int)] > 0
    assert coloured.any()
    assert not (coloured & ~inside).any()
