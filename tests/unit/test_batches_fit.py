"""A batch larger than the training split is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
from generator_cases import DDPM, LDM_VAE, LDM_VQVAE, LLDM, TRAINING

from bench.errors import InputError
from bench.generator import Generator
from bench.harness import check_batches
from bench.registry import GENERATORS

CONFIGS: dict[str, dict[str, Any]] = {
    "ha-gan": {"training": TRAINING},
    "3d-ddpm": DDPM,
    "ldm-vae": LDM_VAE,
    "ldm-vqvae": LDM_VQVAE,
    "3d-lldm": LLDM,
}
PARTS = [
    ("ha-gan", ""),
    ("3d-ddpm", "diffusion."),
    *((name, part) for name in ("ldm-vae", "ldm-vqvae") for part in ("autoencoder.", "ldm.")),
    *(("3d-lldm", f"{part}.") for part in ("label_autoencoder", "label_ldm", "controlnet")),
]


def make(name: str, config: dict[str, Any]) -> Generator:
    model = GENERATORS.get(name)
    generator: Generator = model(model.Config.model_validate(config))
    return generator


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_key_batch_and_cases_are_named(name: str, part: str) -> None:
    config = CONFIGS[name]
    if part:
        key = part.removesuffix(".")
        config = {**config, key: {**config[key], "training": {"steps": 2, "batch_size": 5}}}
    else:
        config = {**config, "training": {"steps": 2, "batch_size": 5}}
    with pytest.raises(InputError) as told:
        check_batches(make(name, config), 4)
    assert f"generators.{name}.{part}training.batch_size is 5, but" in str(told.value)
    assert "has 4 cases" in str(told.value)
    check_batches(make(name, config), 5)


@pytest.mark.parametrize("name", GENERATORS.control_names())
def test_what_does_not_train_in_batches_needs_no_cases(name: str) -> None:
    check_batches(make(name, {}), 1)


def test_a_run_is_refused_before_it_starts(bench: Any, tmp_path: Any) -> None:
    ran = bench(
        *("run", "--out", tmp_path / "out", "--generators", "ha-gan", "--segmenters", "none"),
        *("--set", "data.cases=10", "--set", "generators.ha-gan.training.batch_size=9"),
    )
    assert ran.code == 2
    told = "generators.ha-gan.training.batch_size is 9, but the training split has 7 cases"
    assert told in " ".join(ran.err.split())
    assert not (tmp_path / "out").exists()
