"""The plan: which cells a configuration asks for, in which order, under which keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench.config import RunConfig, plugin_config
from bench.datasets.tasks import default_tasks
from bench.errors import InputError
from bench.generator import Generator, GeneratorConfig, Stage, register_generator
from bench.plan import Cell, DataFacts, ExtractorFacts, make_plan
from bench.registry import GENERATORS, SEGMENTERS

LABELS = {0: "background", 1: "liver", 2: "portal vein", 3: "hepatic vein", 4: "HCC"}
TASKS = tuple(default_tasks(LABELS).values())
DATA = DataFacts("toy", "f" * 64, LABELS, TASKS, n_train=30, n_val=4, n_test=8)
TEXTURE = ExtractorFacts("texture")
FIVE = ("toy-gan", "toy-ddpm", "toy-vqvae", "toy-ldm", "toy-lldm")
SEGMENTERS_5 = ("unet", "resunet", "wideresunet", "dynunet", "vnet")


class ToyConfig(GeneratorConfig):
    width: int = 4
    guidance: float = 1.0


def register_toys() -> None:
    """Five generators; the last two share their autoencoder, as LDM-VAE and 3D-LLDM do."""

    def fit(train: Any, val: Any, run: Any) -> dict[str, Any]:
        return {}

    class Toy(Generator):
        Config = ToyConfig

        def sample(self, indices: Sequence[int], run: Any) -> Iterator[Any]:
            raise AssertionError("a plan samples nothing")

    class Latent(Toy):
        labels = "native"

        def stages(self) -> tuple[Stage, ...]:
            shared = ToyConfig(width=self.config.width)
            return (
                Stage("autoencoder", shared, fit),
                Stage(f"{self.name}/diffusion", self.config, fit, needs=("autoencoder",)),
            )

    for name in FIVE:
        base = Latent if name in FIVE[3:] else Toy
        register_generator(name)(type(name, (base,), {}))


@pytest.fixture(autouse=True)
def toys(restored_registries: None) -> None:
    register_toys()


def config(
    generators: Sequence[str] = FIVE, segmenters: Sequence[str] = SEGMENTERS_5, **fields: Any
) -> RunConfig:
    plugins = {
        "generators": {n: plugin_config(GENERATORS, n, {}, "generators") for n in generators},
        "segmenters": {n: plugin_config(SEGMENTERS, n, {}, "segmenters") for n in segmenters},
    }
    return RunConfig.model_validate({**plugins, **fields})


def plan(facts: DataFacts = DATA, extractor: ExtractorFacts = TEXTURE, **over: Any) -> list[Cell]:
    return make_plan(config(**over), facts, extractor)


def keys(cells: Sequence[Cell], *kinds: str) -> set[str]:
    return {cell.key for cell in cells if not kinds or cell.kind in kinds}


def test_five_generators_five_segmenters_four_tasks_share_the_twenty_cells_of_arm_r() -> None:
    cells = plan()
    arms = Counter(cell.tags.arm for cell in cells if cell.kind == "segment")
    assert arms == {"R": 20, "R+S": 100}
    kinds = Counter(cell.kind for cell in cells)
    # Three image-only generators are labelled by one labeller, which also gives the task features;
    # what is scored for generators is scored for real training volumes too: the floor.
    made = {"prepare": 1, "fit": 6, "sample": 5, "labeller": 1, "label": 3, "segment": 120}
    scored = {"features": 14, "score": 6, "task-score": 6, "memorise": 5, "task-memorise": 5}
    assert kinds == Counter({**made, **scored, "fidelity": 3, "diversity": 6, "structures": 6})


def test_generators_with_an_equal_stage_train_it_once() -> None:
    cells = plan(generators=("toy-ldm", "toy-lldm"), segmenters=())
    fits = [cell for cell in cells if cell.kind == "fit"]
    assert [cell.spec["stage"] for cell in fits] == [
        "autoencoder",
        "toy-ldm/diffusion",
        "toy-lldm/diffusion",
    ]
    assert {cell.needs["stage:autoencoder"] for cell in fits[1:]} == {fits[0].key}
    other = config(generators=("toy-ldm", "toy-lldm"), segmenters=()).model_dump()
    other["generators"]["toy-lldm"]["width"] = 8
    changed = make_plan(RunConfig.model_validate(other), DATA, TEXTURE)
    assert sum(cell.kind == "fit" for cell in changed) == 4


@pytest.mark.parametrize("hashseed", ["0", "1"])
def test_keys_are_the_same_in_another_process(hashseed: str) -> None:
    code = "import test_plan as t; t.register_toys(); print(*[c.key for c in t.plan()])"
    other = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONHASHSEED": hashseed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.split() == [cell.key for cell in plan()]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(spec=st.dictionaries(st.text(), json_values, max_size=5), data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_key_does_not_depend_on_the_order_of_a_mapping(
    spec: dict[str, Any], data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(spec.items()))))
    needs = {"a": "1", "b": "2"}
    backwards = dict(reversed(needs.items()))
    assert Cell("fit", spec, needs).key == Cell("fit", shuffled, backwards).key
    assert Cell("fit", {**spec, "one more": 1}, needs).key != Cell("fit", spec, needs).key
    assert Cell("fit", spec, needs).key != Cell("fit", spec, {"a": "2", "b": "1"}).key
    read = Cell.from_json(json.loads(json.dumps(Cell("fit", spec, needs).to_json())))
    assert read.key == Cell("fit", spec, needs).key


@pytest.mark.parametrize("key", ["", "../" * 22, "A" * 64, "a" * 63])
def test_a_key_that_is_none_is_not_believed(key: str) -> None:
    """It names a folder; one that lies in a file may say anything."""
    cell = Cell("fit", {"seed": 1})
    assert Cell.from_json({**cell.to_json(), "key": key}).key == cell.key
    assert Cell.from_json({**cell.to_json(), "key": "b" * 64}).key == "b" * 64, "as it was planned"


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"device": {"accelerator": "cuda", "precision": "bf16-mixed", "threads": 7}},
        {"note": "another sentence", "description": "another", "preset": "paper"},
        {"data": {"source": "/elsewhere/phantom"}},  # of equal fingerprint
    ],
)
def test_where_a_run_computes_is_no_part_of_a_key(elsewhere: dict[str, Any]) -> None:
    assert keys(plan()) == keys(plan(**elsewhere))


def test_where_the_weights_lie_is_no_part_of_a_key_but_their_content_is() -> None:
    here = plan(extractor=ExtractorFacts("medicalnet", sha256="aa", path="/here.pth"))
    there = plan(extractor=ExtractorFacts("medicalnet", sha256="aa", path="/there.pth"))
    other = plan(extractor=ExtractorFacts("medicalnet", sha256="bb", path="/here.pth"))
    assert keys(here) == keys(there)
    assert not keys(here, "score", "memorise") & keys(other, "score", "memorise")
    untouched = ("fit", "sample", "segment", "task-score", "diversity", "structures", "fidelity")
    assert keys(here, *untouched) == keys(other, *untouched)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"data": {"seed": 1}}, ()),
        ({"data": {"grid": (48, 32, 32)}}, ()),
        ({"data": {"percentiles": (1, 99)}}, ()),
        ({"seeds": (1,)}, ("fit", "sample", "segment", "label", "labeller")),
        ({"segmentation": {"training": {"steps": 11}}}, ("segment",)),
        ({"segmentation": {"equal": "epochs"}}, ("segment",)),
        ({"segmentation": {"tolerance_mm": 1}}, ("segment",)),
        (
            {"labeller": {"training": {"steps": 11}}},
            ("labeller", "label", "task-score", "fidelity"),
        ),
        ({"scoring": {"synthetic": 5}}, ("score", "task-score")),
        ({"scoring": {"resamples": 5}}, ("score", "task-score")),
        ({"scoring": {"neighbours": 3}}, ("score", "task-score")),
        ({"scoring": {"diversity_pairs": 3}}, ("diversity",)),
    ],
)
def test_whatever_changes_a_number_changes_its_keys(
    change: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    before, after = keys(plan(), *kinds), keys(plan(**change), *kinds)
    assert before
    assert not before & after


def test_what_reads_images_alone_waits_for_no_label() -> None:
    before = plan()
    after = plan(labeller={"training": {"steps": 11}}, segmentation={"training": {"steps": 11}})
    untouched = ("fit", "sample", "score", "memorise", "diversity")
    assert keys(before, *untouched) == keys(after, *untouched)
    assert not keys(before, "label", "task-memorise", "fidelity") & keys(after)


def test_a_configuration_of_one_generator_leaves_the_others_alone() -> None:
    changed = config().model_dump()
    changed["generators"]["toy-gan"]["width"] = 5
    before, after = plan(), make_plan(RunConfig.model_validate(changed), DATA, TEXTURE)
    lost = {cell.tags.generator for cell in before if cell.key not in keys(after)}
    assert lost == {"toy-gan"}


def test_other_contents_of_the_data_change_every_key() -> None:
    assert not keys(plan()) & keys(plan(facts=DataFacts("toy", "e" * 64, LABELS, TASKS, 30, 4, 8)))


def test_a_new_version_of_a_segmenter_is_another_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    before = plan(generators=FIVE[:1], segmenters=("unet",))
    unet = SEGMENTERS.get("unet")
    monkeypatch.setitem(SEGMENTERS._loaded, "unet", replace(unet, version="2"))
    after = plan(generators=FIVE[:1], segmenters=("unet",))
    assert not keys(before, "segment", "labeller") & keys(after, "segment", "labeller")
    assert keys(before, "fit", "sample", "score") == keys(after, "fit", "sample", "score")


arms = st.lists(st.sampled_from([0, 6, 20, 30, "all"]), min_size=1, unique=True)
ratios = st.lists(st.sampled_from([0.1, 0.5, 1.0, 1.1, 2.0]), min_size=1, unique=True)


@given(real=arms, ratio=ratios, generators=st.sets(st.sampled_from(FIVE)), seeds=st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_counts_of_arms_and_order(
    real: list[Any], ratio: list[float], generators: set[str], seeds: int
) -> None:
    assume(0 not in real or "all" in real)
    cells = plan(
        generators=sorted(generators),
        segmenters=("unet", "vnet"),
        real=real,
        ratio=ratio,
        seeds=range(seeds),
    )
    segments = Counter(cell.tags.arm for cell in cells if cell.kind == "segment")
    per_arm, some = 2 * 4 * seeds, sum(used != 0 for used in real)
    assert segments["R"] == per_arm * some
    assert segments["R+S"] == per_arm * some * len(ratio) * len(generators)
    assert segments["S"] == per_arm * (0 in real) * len(ratio) * len(generators)
    seen: set[str] = set()
    for cell in cells:
        assert set(cell.needs.values()) <= seen
        assert cell.key not in seen
        seen.add(cell.key)
    counts = {cell.key: cell.spec["count"] for cell in cells if cell.kind == "sample"}
    for cell in cells:
        if cell.tags.arm in ("R+S", "S"):
            assert 0 < cell.spec["synthetic"] <= counts[cell.needs["synthetic"]]


@pytest.mark.parametrize(
    ("used", "ratio", "volumes"),
    [("all", 1, 30), (6, 1, 6), (6, 0.5, 3), (10, 1.1, 11), (7, 0.5, 4), (0, 1, 30), (0, 0.1, 3)],
)
def test_a_ratio_counts_synthetic_volumes_per_real_case(
    used: int | str, ratio: float, volumes: int
) -> None:
    real = (used, "all") if used == 0 else (used,)
    cells = plan(generators=FIVE[:1], segmenters=("unet",), real=real, ratio=(ratio,))
    arms = [c for c in cells if c.kind == "segment" and c.tags.ratio]
    made = {c.spec["synthetic"] for c in arms if c.tags.real == str(used)}
    assert made == {volumes}


def test_the_papers_dose_curve() -> None:
    cells = plan(generators=FIVE[:1], segmenters=("unet",), real=(6, 20, "all"), ratio=(0.5, 1, 2))
    doses = {
        (c.tags.real, c.tags.ratio, c.spec["synthetic"])
        for c in cells
        if c.tags.arm == "R+S" and c.tags.task == "hcc-only"
    }
    assert doses == {
        *(("6", 0.5, 3), ("6", 1, 6), ("6", 2, 12)),
        *(("20", 0.5, 10), ("20", 1, 20), ("20", 2, 40)),
        *(("all", 0.5, 15), ("all", 1, 30), ("all", 2, 60)),
    }
    assert {c.spec["count"] for c in cells if c.kind == "sample"} == {60}


def test_titles_tell_cells_apart() -> None:
    cells = plan(real=(6, "all"), ratio=(1, 2), seeds=(0, 1))
    titles = Counter(cell.title for cell in cells if cell.kind == "segment")
    assert max(titles.values()) == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tasks": ("liver",)}, "'liver'.*liver-only"),
        ({"real": (31,)}, "--real 31 .* 30 "),
        ({"real": (-1,)}, "--real -1"),
        ({"ratio": (0.0,)}, "--ratio 0 "),
        ({"ratio": (float("nan"),)}, "--ratio nan"),
        ({"ratio": (float("inf"),)}, "--ratio inf"),
        ({"scoring": {"synthetic": 1}}, "scoring.synthetic is 1"),
        ({"generators": (), "segmenters": ()}, "Nothing to do"),
    ],
)
def test_arms_that_cannot_be_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        plan(**fields)


def test_doses_that_cannot_be_told_apart_or_compared_are_refused() -> None:
    with pytest.raises(InputError, match=r"--ratio 0\.1 and 0\.09 both mean 3 synthetic"):
        plan(generators=FIVE[:1], segmenters=("unet",), ratio=(0.1, 0.09))
    with pytest.raises(InputError, match="--real 0 is arm S"):
        plan(generators=FIVE[:1], segmenters=("unet",), real=(0,))


def test_preprocessing_and_version_of_an_extractor_are_in_its_features_keys() -> None:
    known = plan(extractor=ExtractorFacts("medicalnet", "1", "symmetric", "aa"))
    for other in (
        ExtractorFacts("medicalnet", "2", "symmetric", "aa"),
        ExtractorFacts("medicalnet", "1", "volume-zscore", "aa"),
    ):
        assert not keys(known, "score", "memorise") & keys(
            plan(extractor=other), "score", "memorise"
        )
