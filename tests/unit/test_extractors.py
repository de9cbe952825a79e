"""Extractors are plug-ins, and a run decides on one before it starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metrics.extractors.weights as weights_module
from bench.checksums import sha256
from bench.config import ScoringConfig, resolve, validate
from bench.errors import InputError
from bench.extractor import build_extractor, decide_extractor
from bench.plan import DataFacts, ExtractorFacts, make_plan
from bench.registry import EXTRACTORS, load_plugin
from metrics.extractors.texture import TextureExtractor
from metrics.fid import fid_per_plane, plane_features
from tests.conftest import Ran

Bench = Callable[..., Ran]

STRANGER = '''"""Somebody else's extractor."""
from __future__ import annotations

import numpy as np

from bench import register_extractor


@register_extractor("histogram")
class Histogram:
    """Shares of sixteen intensity ranges."""

    version = "3"
    protocol = "{protocol}"
    needs_weights = False
    preprocessings = ("plain", "inverted")
    sha256 = ""
    dim = 16

    def __init__(self, weights, device, preprocess):
        assert weights is None
        self.inverted = preprocess == "inverted"

    def __call__(self, volumes):
        values = 1 - volumes if self.inverted else volumes
        return np.stack([np.histogram(v, 16, (0, 1))[0] / v.size for v in values])
'''


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MedicalNet on this machine, and no network."""
    monkeypatch.delenv(weights_module.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(weights_module, "_in_hub_cache", lambda: None)

    def refuse() -> Path:
        raise ValueError("Downloading failed; fetch it by hand.")

    monkeypatch.setattr(weights_module, "_download", refuse)


@pytest.fixture(scope="module")
def medicalnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the true form, every tensor one number."""
    from metrics.extractors.medicalnet import medicalnet_resnet50

    state = medicalnet_resnet50().state_dict()
    path = tmp_path_factory.mktemp("weights") / "medicalnet.pth"
    torch.save({k: torch.tensor(0, dtype=v.dtype).expand(v.shape) for k, v in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def resnet2d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from metrics.extractors.resnet2d import torchvision_resnet50

    state = torchvision_resnet50().state_dict()
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save({k: torch.tensor(0, dtype=v.dtype).expand(v.shape) for k, v in state.items()}, path)
    return path


def stranger(folder: Path, protocol: str = "reorient") -> Path:
    path = folder / "strangers.py"
    path.write_text(STRANGER.replace("{protocol}", protocol))
    return path


def scoring(**fields: Any) -> ScoringConfig:
    return validate(ScoringConfig, fields, "scoring")


def test_the_extractors_of_the_distribution_itself_and_what_they_declare() -> None:
    assert {"medicalnet", "texture", "resnet50-2d"} <= set(EXTRACTORS.names())
    declared = {n: EXTRACTORS.get(n) for n in ("medicalnet", "texture", "resnet50-2d")}
    assert {n: (c.protocol, c.needs_weights) for n, c in declared.items()} == {
        "medicalnet": ("reorient", True),
        "texture": ("reorient", False),
        "resnet50-2d": ("2.5d", True),
    }


def test_auto_is_medicalnet_where_its_weights_are_and_else_the_offline_descriptor(
    medicalnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = decide_extractor(scoring())
    assert offline == ExtractorFacts("texture", "2", plugin="texture")
    expected = ExtractorFacts(
        "medicalnet-resnet50",
        "1",
        "foreground-zscore",
        sha256(medicalnet),
        str(medicalnet),
        "reorient",
        "medicalnet",
    )
    assert decide_extractor(scoring(weights=medicalnet)) == expected
    monkeypatch.setenv(weights_module.WEIGHTS_VARIABLE, str(medicalnet))
    assert decide_extractor(scoring()) == expected
    assert decide_extractor(scoring(extractor="medicalnet")) == expected
    assert decide_extractor(scoring(extractor="texture")) == offline


def test_the_2d_network_takes_its_own_weights_and_protocol(resnet2d: Path) -> None:
    facts = decide_extractor(scoring(extractor="resnet50-2d", weights=resnet2d))
    assert (facts.name, facts.protocol, facts.preprocess) == ("resnet50-2d", "2.5d", "imagenet")
    assert facts.sha256 == sha256(resnet2d)
    symmetric = scoring(
        extractor="resnet50-2d", weights=resnet2d, preprocess="symmetric-224", protocol="2.5d"
    )
    assert decide_extractor(symmetric).preprocess == "symmetric-224"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extractor": "medicalnet"}, "Downloading failed"),
        ({"extractor": "resnet50-2d"}, "resnet50-2d needs weights; give --weights PATH"),
        ({"extractor": "resnet50-2d", "weights": "2D"}, "2D.*do not exist"),
        ({"weights": "3D"}, "3D.*do not exist"),
        ({"extractor": "texture", "weights": "x.pth"}, "texture takes no weights, but x.pth"),
        ({"preprocess": "symmetric"}, "'symmetric', which the extractor texture does not have"),
        ({"protocol": "2.5d"}, "scoring.protocol is 2.5d, but the extractor texture works by reor"),
        (
            {"extractor": "resnet50-2d", "protocol": "reorient"},
            "protocol is reorient, but the extractor resnet50-2d works by 2.5d",
        ),
        (
            {"extractor": "medicalnet", "preprocess": "minmax"},
            "'minmax'.*medicalnet does not have; use one of foreground-zscore, volume-zscore, symm",
        ),
        ({"extractor": "medcalnet"}, "no extractor 'medcalnet': did you mean medicalnet"),
        ({"protocol": "slices"}, "protocol in scoring is 'slices'"),
    ],
)
def test_what_cannot_be_is_one_sentence(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        decide_extractor(scoring(**fields))
    assert "\n" not in str(caught.value)


def test_the_weights_of_another_extractor_are_refused(medicalnet: Path, resnet2d: Path) -> None:
    with pytest.raises(InputError, match="is not MedicalNet's ResNet-50"):
        decide_extractor(scoring(weights=resnet2d))
    with pytest.raises(InputError, match="is no 2D ResNet-50 of torchvision"):
        decide_extractor(scoring(extractor="resnet50-2d", weights=medicalnet))


def test_other_weights_than_the_planned_ones_are_refused(medicalnet: Path) -> None:
    facts = decide_extractor(scoring(weights=medicalnet))
    assert build_extractor(facts, "cpu").sha256 == facts.sha256
    other = ExtractorFacts(**{**vars(facts), "sha256": "ab" * 32})
    with pytest.raises(ValueError, match=f"have sha256 {facts.sha256}, but the run was planned"):
        build_extractor(other, "cpu")


@pytest.mark.parametrize("protocol", ["reorient", "2.5d"])
def test_a_strangers_extractor_from_a_file(tmp_path: Path, protocol: str) -> None:
    path = stranger(tmp_path, protocol)
    load_plugin(path)
    facts = decide_extractor(scoring(extractor="histogram", preprocess="inverted"))
    assert facts == ExtractorFacts(
        "histogram", f"3+{sha256(path)}", "inverted", "", "", protocol, "histogram"
    )
    assert decide_extractor(scoring(extractor="histogram")).preprocess == "plain"
    volumes = np.random.default_rng(0).random((6, 16, 8, 8)).astype(np.float32)
    features = plane_features(volumes, build_extractor(facts, "cpu"))
    slices = (16,) if protocol == "2.5d" else ()
    assert features["sagittal"].shape == (6, *slices, 16)
    assert fid_per_plane(features, features)["average"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("    dim = 16\n", ""), "'histogram' has no dim"),
        (('    version = "3"\n', ""), "'histogram' has no version"),
        (("    needs_weights = False\n", ""), "has no needs_weights"),
        (('"{protocol}"', '"3d"'), "'histogram' has the protocol '3d'; use one of reorient, 2.5d"),
        (('version = "3"', "version = 2"), "'histogram' has the version 2 of the type int"),
        (("needs_weights = False", "needs_weights = 0"), "'histogram' has the needs_weights 0"),
        (('("plain", "inverted")', '"plain"'), "'histogram' has the preprocessings 'plain'"),
        (('    sha256 = ""\n', ""), "'histogram' has the sha256 None"),
        (('sha256 = ""', "sha256 = 5"), "'histogram' has the sha256 5"),
        (
            ("device, preprocess)", "device)"),
            "'histogram' cannot be built: TypeError: .*preprocess",
        ),
        (("assert weights is None", "1 / 0"), "'histogram' cannot be built: ZeroDivisionError"),
        (("def __call__", "def called"), "'histogram' cannot be called"),
    ],
)
def test_an_extractor_that_misses_the_contract_is_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    path = tmp_path / "broken.py"
    broken = STRANGER.replace(*change).replace("{protocol}", "reorient")
    assert broken != STRANGER.replace("{protocol}", "reorient")
    path.write_text(broken)
    load_plugin(path)
    with pytest.raises(InputError, match=message) as caught:
        decide_extractor(scoring(extractor="histogram"))
    assert "\n" not in str(caught.value)


def renamed(name: str) -> type:
    """A class that an entry point registers under another name than the one that it prints."""

    class Mine(TextureExtractor):
        pass

    Mine.name = name
    return Mine


@pytest.mark.parametrize("name", ["task", "auto"])
def test_a_printed_name_that_means_something_else_is_refused(name: str) -> None:
    EXTRACTORS.register("mine", renamed(name))
    with pytest.raises(InputError, match=rf"'mine' gives its name as '{name}', .* rename it"):
        decide_extractor(scoring(extractor="mine"))


def test_two_plugins_that_print_one_name_share_no_cell_of_features() -> None:
    for plugin in ("first", "second"):
        EXTRACTORS.register(plugin, type(plugin, (renamed("same"),), {}))
    cells = []
    for plugin in ("first", "second"):
        facts = decide_extractor(scoring(extractor=plugin))
        assert (facts.name, facts.plugin) == ("same", plugin)
        cells.append(scored_cells(facts))
    assert not cells[0] & cells[1]
    assert cells[0] == scored_cells(decide_extractor(scoring(extractor="first")))


def scored_cells(facts: ExtractorFacts) -> set[str]:
    """Keys of the features and scores of a run on that extractor alone."""
    config = resolve("quick", {}, ["scoring.task_features=false"], "copycat", "none", {})
    data = DataFacts("toy", "f" * 64, {0: "background", 1: "organ"}, (), 6, 2, 4)
    return {c.key for c in make_plan(config, data, facts) if c.kind in ("features", "score")}


def test_list_and_doctor_show_them(bench: Bench, tmp_path: Path) -> None:
    path = stranger(tmp_path)
    ran = bench("list", "extractors", "--plugin", path)
    assert ran.code == 0
    for text in ("medicalnet", "texture", "resnet50-2d", "histogram", "Shares of sixteen"):
        assert text in ran.out
    one = bench("list", "medicalnet")
    assert "protocol: reorient" in one.out
    assert "preprocess: foreground-zscore, volume-zscore, symmetric" in one.out
    assert "weights: scoring.weights or --weights" in one.out
    assert "preprocess: no choice" in bench("list", "texture").out
    assert "did you mean texture" in bench("list", "textur").err
    told = bench("doctor").out
    assert re.search(r"^extractors +medicalnet, resnet50-2d, texture", told, re.MULTILINE)
    assert "Until then FID uses the extractor texture" in told


def test_a_run_on_a_strangers_extractor(bench: Bench, tmp_path: Path) -> None:
    """From the command line to the plan: the name, its file and its preprocessing."""
    path = stranger(tmp_path, "2.5d")
    arguments = ("--dry-run", "--generators", "3d-ddpm", "--segmenters", "none")
    asked = ("--set", "scoring.extractor=histogram", "--out", tmp_path / "out")
    unknown = bench("run", *arguments, *asked)
    assert unknown.code == 2
    assert "there is no extractor 'histogram'" in unknown.err
    ran = bench("run", "--plugin", path, *arguments, *asked)
    assert ran.code == 0, ran.err
    assert "FID features: histogram" in ran.out
