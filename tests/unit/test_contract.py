"""`bench check`: plug-ins that keep the contract pass, and whoever breaks a part is told which."""

from __future__ import annotations

import multiprocessing
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ran

from bench.contract.check import Plugin, check, plugins_of
from bench.contract.requirement import Finding
from bench.registry import load_plugin

PLUGINS = Path(__file__).parent / "broken_plugins.py"

BROKEN = [
    ("generator", "identity", "the version is 2, a int"),
    ("generator", "label-source", "labels is 'pixels'"),
    ("generator", "config", "not frozen"),
    ("generator", "config-described", "secret has no description"),
    ("generator", "config-stored", "sizes is (1, 2) and comes back as [1, 2]"),
    ("generator", "check", "KeyError: 'odd'"),
    ("generator", "stages", "needs ['second']"),
    ("generator", "fit", "UnpicklingError"),
    ("generator", "own-data-only", "images.npy of the test cases was opened"),
    ("generator", "own-data-only-2", "the train cases are not as they were"),
    ("generator", "samples", "3 volumes were asked for and 2 came"),
    ("generator", "samples-2", "more than 3 came"),
    ("generator", "images", "has shape (31, 32, 32), the grid is (32, 32, 32)"),
    ("generator", "range", "not finite"),
    ("generator", "range-2", "7]"),
    ("generator", "labels", "volume 0 has no label, but labels is 'joint'"),
    ("generator", "labels-2", "the unknown ids [99]"),
    ("generator", "index", "volume 2 of [0, 1, 2] and the same of [2]: the images differ"),
    ("generator", "seed", "volumes 0 and 1 are equal"),
    ("generator", "seed-2", "volume 0 of seed 0 and of seed 1 are equal"),
    ("generator", "process-state", "the environment variable MEDDLED was unset and is yes"),
    ("generator", "deterministic", "two fits: the state of 'broken-deterministic/fit' differs at"),
    ("generator", "validation", "differs at seen"),
    ("generator", "resume", "broken-resume/fit went on when it was asked to stop"),
    ("generator", "resume-2", "stopped and begun again: the state of 'broken-resume-2/fit'"),
    ("generator", "resume-3", "SystemExit: stopped"),
    ("generator", "another-process", "in another process: the state of"),
    ("generator", "other-grid", "has shape (32, 32, 32), the grid is (32, 48, 32)"),
    ("segmenter", "identity", "the version is 1, a int"),
    ("segmenter", "config", "not frozen"),
    ("segmenter", "config-described", "secret has no description"),
    ("segmenter", "config-stored", "sizes is (1, 2)"),
    ("segmenter", "build", "RuntimeError: odd"),
    ("segmenter", "output", "for 1 input and 2 output channels the shape is (2, 3, 32, 32, 32)"),
    ("segmenter", "heads", "a list came"),
    ("segmenter", "gradients", "2 of 6 parameters get none, the first is idle.weight"),
    ("segmenter", "each-alone", "alone and in a batch of two they differ"),
    ("segmenter", "weights", "the same state dict gives other logits"),
    ("segmenter", "process-state", "the environment variable MEDDLED"),
    ("segmenter", "deterministic", "two fits: the weights differ at"),
    ("segmenter", "resume", "stopped and begun again: the weights differ at"),
    ("segmenter", "another-process", "in another process: the weights differ at"),
    ("segmenter", "other-grid", "(1, 3, 32, 32, 32), not (1, 3, 32, 48, 32)"),
    ("extractor", "declared", "the protocol '3d'"),
    ("extractor", "built", "has the sha256 None"),
    ("extractor", "features", "the shape is (3, 8), not (3, 9)"),
    ("extractor", "each-alone", "alone and in a batch the features differ"),
    ("extractor", "deterministic", "the second time the features differ"),
    ("extractor", "deterministic-2", "the volumes it was given are others afterwards"),
    ("extractor", "tells-apart", "two volumes have equal features"),
    ("extractor", "preprocessings", "is taken without a word"),
    ("extractor", "other-grid", "RuntimeError: cubes only"),
    ("extractor", "process-state", "the environment variable MEDDLED"),
    ("extractor", "another-process", "in another process the features differ"),
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the phantoms of both grids lie after the first check."""
    return tmp_path_factory.mktemp("sets")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process at once: the true one imports everything anew."""
    preload = ["bench.contract.generators", "bench.contract.segmenters", "lightning_fabric"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preload)
    monkeypatch.setattr("bench.contract.process.START", "forkserver")


@pytest.fixture
def no_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plug-in leaves in the environment is taken away."""
    monkeypatch.setenv("MEDDLED", "")
    monkeypatch.delenv("MEDDLED")


def requirement_of(name: str) -> str:
    """Several break one requirement, by another number at the end."""
    return re.sub(r"-\d$", "", name).replace("-", " ")


def checked(kind: str, name: str, folder: Path, *only: str) -> list[Finding]:
    load_plugin(PLUGINS)
    return list(check(Plugin(kind, name, str(PLUGINS)), folder, [PLUGINS], only=only))


@pytest.mark.usefixtures("forked", "no_marks")
@pytest.mark.parametrize(("kind", "name", "found"), BROKEN)
def test_whoever_breaks_a_requirement_is_told_which_and_how(
    kind: str, name: str, found: str, sets: Path, tmp_path: Path
) -> None:
    folder = sets
    if name == "own-data-only-2":
        folder = Path(shutil.copytree(sets, tmp_path / "sets"))
    requirement = requirement_of(name)
    findings = checked(kind, f"broken-{name}", folder, requirement)
    failed = [finding for finding in findings if finding.status == "fail"]
    assert [finding.name for finding in failed] == [requirement]
    assert found in failed[0].found
    assert "broken_plugins.py" in failed[0].where
    assert failed[0].expected
    assert failed[0].mend
    assert {f.status for f in findings if f.name != requirement} <= {"pass"}


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("kind", "name"),
    [("generator", "good"), ("segmenter", "good-net"), ("extractor", "good-extractor")],
)
def test_whoever_keeps_the_contract_passes(kind: str, name: str, sets: Path) -> None:
    findings = checked(kind, name, sets)
    assert [(f.name, f.found) for f in findings if f.status != "pass"] == []
    broken = {requirement_of(n) for k, n, _ in BROKEN if k == kind}
    assert {finding.name for finding in findings} == broken, "each has somebody who breaks it"


def test_where_an_error_was_raised_is_told(sets: Path) -> None:
    line = next(
        number
        for number, text in enumerate(PLUGINS.read_text().splitlines(), start=1)
        if 'raise KeyError("odd")' in text
    )
    [finding] = [f for f in checked("generator", "broken-check", sets) if f.name == "check"]
    assert f"broken_plugins.py:{line}, in check" in finding.where


def test_what_cannot_be_said_is_skipped_with_the_reason(sets: Path) -> None:
    findings = {f.name: f for f in checked("generator", "refusing", sets)}
    assert "not today" in findings["check"].found
    assert findings["index"].status == "skipped"
    assert "needs " in findings["index"].found
    medicalnet = {f.name: f for f in check(Plugin("extractor", "resnet50-2d", ""), sets)}
    assert medicalnet["built"].status == "skipped"
    assert "give --weights FILE" in medicalnet["built"].found


def test_the_command_names_what_to_mend_and_ends_with_1(
    bench: Callable[..., Ran], tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from bench import register_extractor\n"
        "from broken_plugins import Histogram\n\n\n"
        '@register_extractor("mine")\n'
        "class Mine(Histogram):\n"
        '    """Too short."""\n\n'
        "    dim = 3\n"
    )
    ran = bench("check", path)
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0] == f"mine, extractor ({path})"
    at = next(i for i, line in enumerate(lines) if line.startswith("  FAIL  features"))
    assert [line.split()[0] for line in lines[at + 1 : at + 5]] == [
        *("expected", "found", "where", "mend")
    ]
    assert "(3, 8), not (3, 3)" in lines[at + 2]
    assert f"{path}:5" in lines[at + 3]
    assert "  skip  each alone        needs features" in lines
    assert "1 are not" in ran.out


def test_what_is_no_plug_in_is_named(bench: Callable[..., Ran], tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("")
    for arguments, said in (
        (["unett"], "There is no plug-in 'unett' to check: did you mean unet"),
        ([tmp_path / "nowhere.py"], "nowhere.py does not exist"),
        ([empty], "defines no plug-in"),
        ([], "Give bench check the name or file of a plug-in, or --all"),
        (["unet", "--all"], "or --all"),
    ):
        ran = bench("check", *arguments)
        assert ran.code == 2
        assert said in ran.err
    assert [p.kind for p in plugins_of("unet")] == ["segmenter"]


@pytest.mark.long
def test_every_built_in_plug_in_keeps_the_contract(bench: Callable[..., Ran]) -> None:
    ran = bench("check", "--all")
    assert ran.code == 0, ran.out
