"""Bits that flip and files that are cut: found in every kind of file, and never used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import finish, start
from toy_runs import Bench, attempts, cells, measured, tiny

from bench.store import Store
from bench.validation import damaged_cells

DAMAGES = 100


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which everything is done."""
    out = tmp_path_factory.mktemp("finished") / "out"
    ran = finish(start(*tiny(out, "toy-plain,toy-joint")))
    assert ran.code == 0, ran.err
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def watched(out: Path) -> Iterator[tuple[str, Path]]:
    """Every file that a later cell or a report reads, with its kind: "fit state.pt"."""
    store = Store(out)
    for cell in cells(out).values():
        folder = store.folder(cell.key)
        artefacts = [p for p in (folder / "artefacts").rglob("*") if p.is_file()]
        for path in (*artefacts, folder / "result.json", folder / "cell.json"):
            yield f"{cell.kind} {path.name}", path


def spoil(path: Path, chance: random.Random) -> str:
    """Flip one bit or cut the end off; what was done."""
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        keep = chance.randrange(len(content))
        path.write_bytes(content[:keep])
        return f"cut to {keep} of {len(content)} bytes"
    byte, bit = chance.randrange(len(content)), chance.randrange(8)
    content[byte] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {byte}"


def test_a_hundred_damages_of_every_kind_of_file_are_found(out: Path) -> None:
    chance, store = random.Random(5), Store(out)
    everything = list(cells(out).values())
    kinds: dict[str, list[Path]] = {}
    for kind, path in watched(out):
        if path.stat().st_size:
            kinds.setdefault(kind, []).append(path)
    assert len(kinds) > 20
    assert list(damaged_cells(store, everything)) == []
    for n in range(max(DAMAGES, len(kinds))):
        kind = sorted(kinds)[n % len(kinds)]
        path = chance.choice(kinds[kind])
        whole = path.read_bytes()
        done = spoil(path, chance)
        found = [cell.key[:20] for cell, _ in damaged_cells(store, everything)]
        assert [path.relative_to(store.cells).parts[0]] == found, f"{kind}: {done}"
        path.write_bytes(whole)


def test_a_damaged_artefact_is_computed_again_before_it_is_read(bench: Bench, out: Path) -> None:
    known, store = cells(out), Store(out)
    before, expected = attempts(out), measured(out)
    fit, sample = known["fit toy-joint fit"], known["sample toy-joint"]
    segment = known["segment toy-conv liver-only R+S toy-joint"]
    spoil(store.artefacts(fit.key) / "state.pt", random.Random(1))
    spoil(next(store.artefacts(sample.key).rglob("images.npy")), random.Random(2))
    shutil.rmtree(store.folder(segment.key))
    ran = bench(*tiny(out, "toy-plain,toy-joint"))
    assert ran.code == 0, ran.out + ran.err
    assert ran.out.count("DAMAGED") == 2
    assert "state.pt" in ran.out
    assert "images.npy" in ran.out
    after = attempts(out)
    # The segmentation finds the sample damaged; made anew, the sample finds the fit damaged.
    assert after[sample.title][2:] == ["damaged", "started", "interrupted", "started", "done"]
    assert after[fit.title] == ["started", "done", "damaged", "started", "done"]
    assert {t for t in after if after[t] != before[t]} == {fit.title, sample.title, segment.title}
    assert measured(out) == expected
    assert list(damaged_cells(store, list(known.values()))) == []


def test_validate_finds_what_nobody_reads_and_a_run_mends_it(bench: Bench, out: Path) -> None:
    known, store, expected = cells(out), Store(out), measured(out)
    titles = ["score toy-joint", "segment toy-conv liver-only R"]
    for title in titles:
        spoil(store.folder(known[title].key) / "result.json", random.Random(3))
    told = bench("validate", out)
    assert told.code == 1
    assert all(f"damaged: {title}: " in told.out for title in titles)
    assert "2 damaged" in told.out
    assert "damaged: score toy-joint" in bench("status", out).out
    assert bench("validate", out, "--set-aside").code == 1
    assert bench(*tiny(out, "toy-plain,toy-joint")).code == 0
    assert bench("validate", out).code == 0
    assert measured(out) == expected
    freed = bench("clean", out, "--dry-run").out
    assert freed.count("/damaged") == 2
    assert bench("clean", out).code == 0
    assert not list(out.glob("cells/*/damaged"))
    assert bench("validate", out).code == 0


def test_a_report_never_shows_a_damaged_artefact(bench: Bench, out: Path) -> None:
    known, store = cells(out), Store(out)
    pairs = store.artefacts(known["memorise toy-joint"].key) / "pairs.npz"
    spoil(pairs, random.Random(4))
    assert bench("report", out).code == 0
    page = (out / "leaderboard" / "leaderboard.md").read_text()
    assert "nearest-toy-plain.png" in page
    assert "nearest-toy-joint.png" not in page
    assert "pairs.npz" in page
