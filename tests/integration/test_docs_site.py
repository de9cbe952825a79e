"""The built site: whole, linked, and loading nothing from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("mkdocs", reason="the site is built with the extra docs")

LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built so that a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return folder


class Loads(HTMLParser):
    """What a page loads by itself, and the tags that it holds."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        address = dict(attrs).get(LOADING.get(tag, ""))
        if address:
            self.addresses.append(address)


def test_every_page_loads_only_what_lies_beside_it(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        if page.name == "404.html":
            continue
        for address in Loads(page).addresses:
            assert "//" not in address, f"{page.name} loads {address}"
            assert (page.parent / address.split("?")[0].split("#")[0]).exists(), address


def test_no_style_of_the_site_is_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert "@import" not in text
        assert "url(http" not in text
        assert "url(//" not in text


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    assert "math" in Loads(site / "numbers.html").tags


def test_functions_are_linked_from_the_page_of_numbers(site: Path) -> None:
    page = (site / "numbers.html").read_text(encoding="utf-8")
    assert 'href="reference/metrics.html#metrics.frechet.frechet_distance"' in page
    assert 'id="metrics.frechet.frechet_distance"' in (site / "reference/metrics.html").read_text()
    assert "][metrics." not in page


def test_scripts_of_the_folder_are_not_published(site: Path) -> None:
    assert not list(site.rglob("*.py"))
