"""The configuration of a run: layers, overrides, and sentences for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config import RunConfig, resolve
from bench.errors import InputError, nearest
from bench.presets import preset_names, read_preset


def config(*settings: str, segmenters: str = "unet", **options: Any) -> RunConfig:
    return resolve("quick", {}, settings, "none", segmenters, options)


def test_later_layers_win() -> None:
    preset = read_preset("quick")["segmentation"]["training"]
    plain = config()
    assert plain.segmentation.training.steps == preset["steps"]
    assert plain.segmentation.training.warmup_steps == 0  # the model's default
    changed = config("segmentation.training.steps=7", "segmentation.training.learning_rate=1e-2")
    assert changed.segmentation.training.steps == 7
    assert changed.segmentation.training.learning_rate == 0.01
    assert changed.segmentation.training.batch_size == preset["batch_size"]
    assert config("seeds=[3]").seeds == (3,)
    assert config("seeds=[3]", seeds=(1, 2)).seeds == (1, 2)
    assert resolve("quick", {"cases": 9}, ["data.cases=8"], "none", "unet", {}).data.cases == 8


def test_the_resolved_configuration_is_complete_and_plain() -> None:
    resolved = config("segmenters.unet.dropout=0.25")
    assert resolved.segmenters["unet"] == {
        "channels": [16, 32, 64, 128, 256],
        "residual_units": 0,
        "dropout": 0.25,
    }
    dumped = yaml.safe_dump(resolved.model_dump(mode="json"))
    assert RunConfig.model_validate(yaml.safe_load(dumped)) == resolved


def test_names_select_plugins_in_order() -> None:
    assert list(config(segmenters="vnet, unet,vnet").segmenters) == ["vnet", "unet"]
    assert list(config(segmenters="none").segmenters) == []
    everything = list(config(segmenters="all").segmenters)
    order = list(read_preset("quick")["segmenters"])
    assert everything[: len(order)] == order


def test_names_of_controls_are_mixed_with_others_and_all_leaves_them_out() -> None:
    def chosen(generators: str) -> list[str]:
        return list(resolve("quick", {}, [], generators, "none", {}).generators)

    everything, controls = chosen("all"), chosen("controls")
    assert {"oracle", "copycat", "scramble"} <= set(controls)
    assert not set(everything) & set(controls)
    assert chosen("all,controls") == [*everything, *controls]
    assert chosen("controls,all") == [*controls, *everything]
    assert chosen("3d-lldm, oracle") == ["3d-lldm", "oracle"]
    first, *others = controls
    assert chosen(f"{others[0]},controls") == [others[0], first, *others[1:]]
    with pytest.raises(InputError, match=r"no generator 'control': did you mean controls"):
        chosen("control")
    with pytest.raises(InputError, match=r"no generator 'none'"):
        chosen("oracle,none")
    with pytest.raises(InputError, match=r"no segmenter 'controls'"):
        config(segmenters="controls")


def test_a_setting_may_name_a_control_with_a_dot() -> None:
    def sigma(*settings: str) -> float:
        made = resolve("quick", {}, settings, "blur-0.5,blur-1", "none", {})
        return float(made.generators["blur-0.5"]["sigma"])

    assert sigma() == 0.5
    assert sigma("generators.blur-0.5.sigma=0.25", "generators.blur-1.sigma=3") == 0.25
    with pytest.raises(InputError, match=r"'sgma' in generators.blur-0.5: did you mean sigma"):
        sigma("generators.blur-0.5.sgma=1")
    with pytest.raises(InputError, match=r"no generator 'blur-0' to set: did you mean"):
        sigma("generators.blur-0.sigma=1")


@pytest.mark.parametrize("name", preset_names())
def test_a_presets_anchors_are_not_shared_by_a_setting(name: str) -> None:
    preset = read_preset(name)["generators"]
    plain = resolve(name, {}, [], "ldm-vae,3d-lldm", "none", {}).generators
    path = "autoencoder.training.steps"
    changed = resolve(
        name, {}, [f"generators.ldm-vae.{path}=12345"], "ldm-vae,3d-lldm", "none", {}
    ).generators
    assert changed["ldm-vae"]["autoencoder"]["training"]["steps"] == 12345
    assert changed["3d-lldm"] == plain["3d-lldm"]
    assert read_preset(name)["generators"] == preset


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("x", r"--set takes key=value, but got 'x'"),
        ("=5", r"--set takes key=value"),
        ("data.csaes=20", r"Unknown key 'data.csaes' in the configuration: did you mean cases"),
        ("dta.cases=20", r"Unknown key 'dta' in the configuration: did you mean data"),
        ("segmentation.training.step=2", r"'segmentation.training.step' .*did you mean steps"),
        ("segmenters.unet.droput=0.5", r"'droput' in segmenters.unet: did you mean dropout"),
        ("segmenters.unett.dropout=0.5", r"no segmenter 'unett' to set: did you mean unet"),
        ("segmenters.unet=5", r"segmenters.unet .* is 5"),
        ("generators=5", r"generators in the configuration is 5"),
        ("segmenters.unet.dropout=2", r"dropout in segmenters.unet is 2: .*less than 1"),
        ("segmentation.training.steps=0", r"steps in the configuration is 0: .*greater than 0"),
        ("segmentation.training.steps=many", r"steps in the configuration is 'many'"),
        ("data.cases.x=2", r"'cases' has no parts"),
        ("data.grid=[30, 32, 32]", r"data.grid .*\(30, 32, 32\) must be multiples of 16"),
        ("data.split=[1, 1, 1]", r"data.split .*add up to 1"),
        ("data.cases=[", r"'\[' is not a YAML value"),
        ("scoring.extractor=inception", r"scoring.extractor .* is 'inception'"),
        ("seeds=[-1]", r"seeds.0 .* is -1"),
        ("seeds=[]", r"seeds in the configuration"),
        ("real=[some]", r"real.* 'some'"),
    ],
)
def test_a_bad_setting_is_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        config(setting)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_unknown_presets_and_plugins_are_named() -> None:
    with pytest.raises(InputError, match="no preset 'qick': did you mean quick"):
        resolve("qick", {}, [], "none", "unet", {})
    with pytest.raises(InputError, match=r"no segmenter 'resunett'.*did you mean resunet"):
        config(segmenters="resunett")
    with pytest.raises(InputError, match=r"no generator 'ha_gan'.*did you mean ha-gan"):
        resolve("quick", {}, [], "ha_gan", "unet", {})


def test_nearest_gives_a_few_or_all() -> None:
    assert nearest("stesp", ["steps", "betas"]) == "did you mean steps?"
    assert nearest("q", ["steps", "betas"]) == "known are steps, betas."


def test_presets_are_whole_configurations() -> None:
    assert preset_names()[0] == "quick"
    for name in preset_names():
        resolved = resolve(name, {}, [], "none", "all", {})
        assert resolved.preset == name
        assert resolved.description


def test_a_yaml_file_as_data_source_keeps_its_own_values(tmp_path: Path) -> None:
    """The defaults of `data` must not count as given beside the file."""
    path = tmp_path / "data.yaml"
    path.write_text("source: phantom\ngrid: [48, 48, 48]\nseed: 7\n", encoding="utf-8")
    config = RunConfig.model_validate({"data": {"source": str(path)}})
    assert config.data.grid == (48, 48, 48)
    assert config.data.seed == 7
