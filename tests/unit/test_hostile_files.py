"""No file runs code: every place that reads one refuses a pickle that would, in one sentence."""

from __future__ import annotations

import ast
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, TOYS, Ran
from hostile import archive, array, plain, torch_file

from bench.cells.feature_cache import FeatureCache
from bench.cells.features import stored_image
from bench.cells.score import read_features
from bench.checkpoint import Checkpoints
from bench.device import Device
from bench.errors import InputError
from bench.pictures import read_pairs
from bench.registry import GENERATORS
from bench.run import Run
from bench.sampling import open_fitted
from bench.volumes import VolumeSet, VolumeSetWriter
from metrics.extractors.medicalnet import load_medicalnet
from metrics.extractors.resnet2d import load_resnet2d

CPU = torch.device("cpu")
Write = Callable[[Path, Path], Path]


def checkpoints(path: Path) -> Checkpoints:
    return Checkpoints(last=path, best=path, belongs_to={}, minutes=1.0)


def run_of(path: Path) -> Run:
    device = Device(accelerator="cpu", precision="32-true")
    return Run(0, path.parent, (1, 1, 1), {}, device, {"fit": path})


TENSORS: dict[str, Callable[[Path], Any]] = {
    "a fit's state": lambda path: run_of(path).state(),
    "a fit's checkpoint": lambda path: checkpoints(path).load(None, CPU),  # type: ignore[arg-type]
    "a fit's best networks": lambda path: checkpoints(path).best_networks(CPU),
    "MedicalNet's weights": load_medicalnet,
    "a 2D ResNet's weights": load_resnet2d,
}


@pytest.mark.parametrize("write", [plain, torch_file])
@pytest.mark.parametrize("place", TENSORS)
def test_weights_and_checkpoints_run_no_code(place: str, write: Write, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = write(tmp_path / "state.pt", mark)
    with pytest.raises(ValueError, match=r"state\.pt") as refused:  # an InputError, or metrics' own
        TENSORS[place](path)
    assert "\n" not in str(refused.value)
    assert not mark.exists()


def volume_set(folder: Path) -> VolumeSet:
    with VolumeSetWriter(folder, (2, 2, 2), {0: "background", 1: "a"}) as writer:
        writer.append("case", np.zeros((2, 2, 2)), np.zeros((2, 2, 2), np.uint8))
    return VolumeSet.open(folder)


def context_of(path: Path) -> Any:
    return SimpleNamespace(needed=lambda role: path.parent)


ARRAYS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "images": ("images.npy", lambda path: volume_set_with(path).image(0)),
    "labels": ("labels.npy", lambda path: volume_set_with(path).label(0)),
    "pseudo labels": ("more.npy", lambda path: volume_set_with(path).with_labels(path)),
    "stored images": ("images.npy", lambda path: stored_image(volume_set_with(path), 0)),
    "features": ("features.npz", lambda path: read_features(context_of(path), "real")),
    "nearest pairs": ("pairs.npz", read_pairs),
}


def volume_set_with(path: Path) -> VolumeSet:
    """A sound set, of which `path` alone is another's."""
    hostile = path.read_bytes()
    volumes = volume_set(path.parent)
    path.write_bytes(hostile)
    return volumes


@pytest.mark.parametrize("place", ARRAYS)
def test_arrays_run_no_code(place: str, tmp_path: Path) -> None:
    mark, (name, read) = tmp_path / "mark", ARRAYS[place]
    folder = tmp_path / "set"
    folder.mkdir()
    if name.endswith(".npz"):
        archive(folder / name, mark, "synthetic", "train", "train_ids", "distance", "axial")
        writers: list[Write] = [lambda path, _: path]
    else:
        writers = [array, plain]
    for write in writers:
        path = write(folder / name, mark)
        with pytest.raises(ValueError, match=r"pickle|Python objects") as refused:
            read(path)
        assert "\n" not in str(refused.value)
    assert not mark.exists()


def test_a_cached_feature_with_code_counts_as_missing(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    path = cache.path("ab12")
    path.parent.mkdir()
    archive(path, tmp_path / "mark", "axial", "sha256")
    assert cache.read("ab12") is None
    assert not (tmp_path / "mark").exists()


def test_the_bombs_do_go_off_where_nobody_takes_care(tmp_path: Path) -> None:
    for i, write in enumerate((plain, torch_file, array)):
        mark = tmp_path / f"mark-{i}"
        path = write(tmp_path / f"{i}.npy", mark)
        if write is plain:
            pickle.loads(path.read_bytes())
        elif write is torch_file:
            torch.load(path, weights_only=False)
        else:
            np.load(path, allow_pickle=True)
        assert mark.exists()


def calls(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(name, constant keywords) of every call in a module."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            keywords = {
                k.arg: k.value.value
                for k in node.keywords
                if k.arg and isinstance(k.value, ast.Constant)
            }
            found.append((ast.unparse(node.func), keywords))
    return found


@pytest.mark.parametrize("package", ["bench", "generators", "segmenters", "metrics", "leaderboard"])
def test_nothing_is_unpickled_and_no_shell_is_used(package: str) -> None:
    never = {"eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load", "torch.hub.load"}
    for path in (ROOT / package).rglob("*.py"):
        for name, keywords in calls(path):
            where = f"{path.name}: {name}"
            assert name not in never, where
            assert not name.startswith(("pickle.", "dill.", "joblib.", "cloudpickle.")), where
            assert not keywords.get("allow_pickle"), where
            assert not keywords.get("shell"), where
            if name == "torch.load":
                assert keywords.get("weights_only") is True, where


@pytest.mark.parametrize("inside", ["evil.py", "cells/../evil.py"])
def test_a_runs_folder_brings_no_plug_in_of_its_own(
    bench: Callable[..., Ran], tmp_path: Path, inside: str
) -> None:
    """A run that is handed on is data: `bench sample` imports nothing that lies in it."""
    out, mark = tmp_path / "run", tmp_path / "mark"
    (out / "cells").mkdir(parents=True)
    (out / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    for path in (str(out / inside), inside):
        run = {"plugins": [path], "controls": [], "config": {}}
        (out / "run.json").write_text(json.dumps(run))
        ran = bench("sample", "x", "--run", out)
        assert ran.code == 2
        assert "from which no code is run" in ran.err
        assert ran.err.count("\n") == 1
    assert not mark.exists()
    mine = {"plugins": [str(TOYS)], "controls": [], "config": {"generators": {}, "seeds": [0]}}
    (out / "run.json").write_text(json.dumps(mine))
    with pytest.raises(InputError, match="has no generator 'x'"):  # the user's own was loaded
        open_fitted(out, "x")
    assert "toy-plain" in GENERATORS.names()


HOSTILE_NAMES = [
    "../../up",
    "a/b",
    "<script>alert(1)</script>",
    "a|b",
    "[x](y)",
    "a\nb",
    "a b",
    "`x`",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["generator", "segmenter", "extractor"])
def test_a_plug_in_s_name_is_no_path_and_no_markup(
    bench: Callable[..., Ran], tmp_path: Path, kind: str, name: str
) -> None:
    path = tmp_path / "named.py"
    path.write_text(
        f"from bench import register_{kind} as register\n"
        f"class Thing:\n    Config, preprocessings = None, ()\n"
        f"register({name!r})(Thing)\n"
    )
    ran = bench("list", "--plugin", path)
    assert ran.code == 2
    assert "letters, digits, dots, hyphens and underscores" in ran.err
    assert ran.err.count("\n") == 1
