"""Plug-ins that keep the contract, and one for every requirement that they can break."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from bench import (
    Batches,
    Generator,
    GeneratorConfig,
    InputError,
    Run,
    Sample,
    SegmenterConfig,
    Stage,
    TrainingConfig,
    VolumeSet,
    register_extractor,
    register_generator,
    register_segmenter,
    train,
)

# Generators ---------------------------------------------------------------------------------------


class GoodConfig(GeneratorConfig):
    """Strength of the noise, and the training of its mean."""

    strength: float = Field(0.1, description="of the noise")
    training: TrainingConfig = Field(TrainingConfig(steps=500, batch_size=9), description="steps")


@register_generator("good")
class Good(Generator):
    """A learnt brightness and noise."""

    Config = GoodConfig
    labels = "joint"

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        net = nn.Linear(1, 1)
        batches = Batches(len(train_set), self.config.training.batch_size, run.seed)

        def losses(nets: Mapping[str, nn.Module], x: Tensor) -> Iterator[tuple[str, Tensor]]:
            yield "all", (nets["net"](torch.ones_like(x) + 0.1 * torch.randn(1)) - x).abs().mean()

        def batch(step: int) -> Tensor:
            return torch.from_numpy(train_set.images(batches(step))).mean((1, 2, 3))[:, None]

        return train(run, {"net": net}, losses, batch, self.config.training)

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        bias = run.state()["net"]["bias"]
        for i in indices:
            noise = self.noise(i, run)
            image = (0.5 + 0.1 * torch.tanh(bias) + self.config.strength * noise).clamp(0, 1)
            yield Sample(image.numpy(), (image > 0.5).numpy().astype(np.uint8))

    def noise(self, i: int, run: Run) -> Tensor:
        return run.noise(i, run.grid)


def broken(name: str) -> Any:
    return register_generator(f"broken-{name}")


@broken("identity")
class Identity(Good):
    """Its version is no text."""

    version = 2  # type: ignore[assignment]


@broken("label-source")
class LabelSource(Good):
    """Its labels come from nowhere known."""

    labels = "pixels"  # type: ignore[assignment]


@broken("config")
class Thawed(Good):
    """Its configuration can be changed."""

    class Config(BaseModel):  # type: ignore[assignment]
        strength: float = Field(0.1, description="of the noise")


@broken("config-described")
class Undescribed(Good):
    """A field says nothing."""

    class Config(GoodConfig):  # type: ignore[assignment]
        secret: int = 3


@broken("config-stored")
class Unstored(Good):
    """A tuple comes back as a list."""

    class Config(GoodConfig):  # type: ignore[assignment]
        sizes: Any = Field((1, 2), description="sizes")


@broken("check")
class Check(Good):
    """It refuses by an error of its own."""

    def check(self, grid: tuple[int, int, int], label_names: Mapping[int, str]) -> None:
        if grid[0] % 16:
            raise KeyError("odd")


@broken("stages")
class Stages(Good):
    """Its first stage needs its second."""

    def stages(self) -> Sequence[Stage]:
        second = Stage("second", self.config, self.fit)
        return Stage("first", self.config, self.fit, needs=("second",)), second


@broken("fit")
class Fit(Good):
    """Its state holds a function."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        return {"function": broken}


@broken("own-data-only")
class Curious(Good):
    """It looks at the test cases."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        folder = train_set.rows[0][0].parents[1]
        np.load(folder / "test" / "images.npy")
        return super().fit(train_set, val, run)


@broken("own-data-only-2")
class Vandal(Good):
    """It writes into the training cases."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        path, row = train_set.rows[0]
        np.load(path, mmap_mode="r+")[row, 0, 0, 0] += 1
        return super().fit(train_set, val, run)


@broken("samples")
class Few(Good):
    """One volume is missing."""

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        return super().sample(indices[:-1], run)


@broken("samples-2")
class Endless(Good):
    """It never ends."""

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        while True:
            yield from super().sample(indices, run)


class Changed(Good):
    """Every volume is changed before it is given."""

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        for drawn in super().sample(indices, run):
            yield self.change(drawn)

    def change(self, drawn: Sample) -> Sample:
        return drawn


@broken("images")
class Cropped(Changed):
    """A slice is missing."""

    def change(self, drawn: Sample) -> Sample:
        return drawn._replace(image=drawn.image[1:])


@broken("range")
class Nan(Changed):
    """A voxel is no number."""

    def change(self, drawn: Sample) -> Sample:
        drawn.image[0, 0, 0] = np.nan
        return drawn


@broken("range-2")
class Bright(Changed):
    """A voxel is too bright."""

    def change(self, drawn: Sample) -> Sample:
        drawn.image[0, 0, 0] = 7
        return drawn


@broken("labels")
class Unlabelled(Changed):
    """It declares labels and gives none."""

    def change(self, drawn: Sample) -> Sample:
        return drawn._replace(label=None)


@broken("labels-2")
class Strange(Changed):
    """A label that the data do not have."""

    def change(self, drawn: Sample) -> Sample:
        return drawn._replace(label=np.full_like(drawn.label, 99))


@broken("index")
class Global(Good):
    """Noise from the process's own random state."""

    def noise(self, i: int, run: Run) -> Tensor:
        return torch.randn(run.grid)


@broken("seed")
class Monotone(Good):
    """One volume again and again."""

    def noise(self, i: int, run: Run) -> Tensor:
        return run.noise(0, run.grid)


@broken("seed-2")
class Seedless(Good):
    """The seed counts for nothing."""

    def noise(self, i: int, run: Run) -> Tensor:
        return torch.from_numpy(np.random.default_rng(i).normal(size=run.grid)).float()


@broken("process-state")
class Meddler(Good):
    """It sets an environment variable for everybody."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        os.environ["MEDDLED"] = "yes"
        return super().fit(train_set, val, run)


@broken("deterministic")
class Restless(Good):
    """Its state holds the time."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        return {**super().fit(train_set, val, run), "time": time.time()}


@broken("validation")
class Leak(Good):
    """It learns from the validation cases too."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        kept = super().fit(train_set, val, run)
        return {**kept, "seen": torch.from_numpy(val.images()).mean()}


@broken("resume")
class Deaf(Good):
    """It tells of steps and does not stop."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        for step in range(6):
            run.progress(step + 1, 6, {"loss/all": 0.0})
        return {"net": {"bias": torch.zeros(1)}}


@broken("resume-2")
class Forgetful(Good):
    """Something it learns is not in the checkpoint."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        calls: list[int] = []

        def batch(step: int) -> Tensor:
            calls.append(step)
            return torch.full((1, 1), float(len(calls)))

        def losses(nets: Mapping[str, nn.Module], x: Tensor) -> Iterator[tuple[str, Tensor]]:
            yield "all", (nets["net"](x) - x).square().mean()

        return train(run, {"net": nn.Linear(1, 1)}, losses, batch, self.config.training)


@broken("resume-3")
class Leaver(Good):
    """It ends the process when it is asked to stop."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        for step in range(6):
            run.progress(step + 1, 6, {"loss/all": 0.0})
            if run.stop_requested():
                sys.exit("stopped")
        return {"net": {"bias": torch.zeros(1)}}


@broken("another-process")
class Homebody(Good):
    """It learns the number of its process."""

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        return {**super().fit(train_set, val, run), "pid": os.getpid()}


@broken("other-grid")
class Cube(Good):
    """It knows one grid, and takes all."""

    def noise(self, i: int, run: Run) -> Tensor:
        return run.noise(i, (32, 32, 32))


# Segmenters ---------------------------------------------------------------------------------------


class NetConfig(SegmenterConfig):
    """Width of the network."""

    width: int = Field(2, gt=0, description="channels")


class Net(nn.Module):
    """Two convolutions."""

    def __init__(self, inputs: int, outputs: int, width: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, width, 3, padding=1)
        self.last = nn.Conv3d(width, outputs, 1)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.first(x).relu())


def net(name: str, config: Any = NetConfig, version: Any = "1") -> Any:
    return register_segmenter(name, config, version)


def network(name: str) -> Any:
    """Class decorator: a segmenter that builds the class."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        def build(inputs: int, outputs: int, size: Any, config: Any) -> nn.Module:
            return cls(inputs, outputs)

        build.__qualname__ = cls.__qualname__  # as if each were written out
        net(name)(build)
        return cls

    return register


@net("good-net")
def good_net(inputs: int, outputs: int, size: Any, config: NetConfig) -> nn.Module:
    """Two convolutions."""
    return Net(inputs, outputs, config.width)


@net("broken-identity", version=1)
def numbered(inputs: int, outputs: int, size: Any, config: NetConfig) -> nn.Module:
    return Net(inputs, outputs)


@net("broken-config", Thawed.Config)
def thawed(inputs: int, outputs: int, size: Any, config: Any) -> nn.Module:
    return Net(inputs, outputs)


class NetUndescribed(NetConfig):
    secret: int = 3


@net("broken-config-described", NetUndescribed)
def undescribed(inputs: int, outputs: int, size: Any, config: Any) -> nn.Module:
    return Net(inputs, outputs)


class NetUnstored(NetConfig):
    sizes: Any = Field((1, 2), description="sizes")


@net("broken-config-stored", NetUnstored)
def unstored(inputs: int, outputs: int, size: Any, config: Any) -> nn.Module:
    return Net(inputs, outputs)


@net("broken-build")
def picky(inputs: int, outputs: int, size: Any, config: Any) -> nn.Module:
    if size[0] % 16:
        raise RuntimeError("odd")
    return Net(inputs, outputs)


@net("broken-output")
def stubborn(inputs: int, outputs: int, size: Any, config: Any) -> nn.Module:
    return Net(inputs, 3)


@network("broken-heads")
class Listed(Net):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return [y, y] if self.training else y


@network("broken-gradients")
class Idle(Net):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.idle = nn.Conv3d(1, 1, 1)


@network("broken-each-alone")
class Batched(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x - x.mean(dim=0, keepdim=True))


@network("broken-weights")
class Hidden(Net):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.seen = 0

    def forward(self, x: Tensor) -> Any:
        self.seen += self.training
        return super().forward(x + 0.1 * self.seen)


@network("broken-process-state")
class Threads(Net):
    def forward(self, x: Tensor) -> Any:
        os.environ["MEDDLED"] = str(time.time())
        return super().forward(x)


@network("broken-deterministic")
class Noisy(Net):
    def forward(self, x: Tensor) -> Any:
        noise = np.random.default_rng().normal() if self.training else 0.0
        return super().forward(x + float(noise))


@network("broken-resume")
class Warming(Net):
    """What it has seen of training is no part of its state, and does not matter afterwards."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.seen = 0

    def forward(self, x: Tensor) -> Any:
        self.seen += self.training
        return super().forward(x + 0.1 * self.seen * self.training)


@network("broken-another-process")
class Local(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x + os.getpid() % 1000 * self.training)


@network("broken-other-grid")
class Cubic(Net):
    def forward(self, x: Tensor) -> Any:
        side = x.shape[2]
        return super().forward(x[..., :side, :side])


# Extractors ---------------------------------------------------------------------------------------


@register_extractor("good-extractor")
class Histogram:
    """Shares of eight intensity ranges."""

    version = "1"
    protocol = "reorient"
    needs_weights = False
    preprocessings = ("plain", "inverted")
    sha256 = ""
    dim = 8

    def __init__(self, weights: Any, device: str, preprocess: str) -> None:
        if preprocess not in self.preprocessings:
            raise ValueError(f"There is no preprocessing {preprocess!r}.")
        self.inverted = preprocess == "inverted"

    def __call__(self, volumes: Any) -> Any:
        values = 1 - volumes if self.inverted else volumes
        return np.stack([np.histogram(v, 8, (0, 1))[0] / v.size for v in values])


@register_extractor("broken-declared")
class Undeclared(Histogram):
    protocol = "3d"


@register_extractor("broken-built")
class Uncalled(Histogram):
    sha256 = None  # type: ignore[assignment]


@register_extractor("broken-features")
class Short(Histogram):
    dim = 9


@register_extractor("broken-each-alone")
class Normalised(Histogram):
    def __call__(self, volumes: Any) -> Any:
        return super().__call__(volumes / volumes.max())


@register_extractor("broken-deterministic")
class Dithered(Histogram):
    def __call__(self, volumes: Any) -> Any:
        return super().__call__(volumes) + 1e-9 * np.random.default_rng().random()


@register_extractor("broken-deterministic-2")
class Overwriting(Histogram):
    def __call__(self, volumes: Any) -> Any:
        found = super().__call__(volumes)
        volumes *= 0
        return found


@register_extractor("broken-tells-apart")
class Blind(Histogram):
    def __call__(self, volumes: Any) -> Any:
        return np.ones((len(volumes), 8))


@register_extractor("broken-preprocessings")
class Lenient(Histogram):
    def __init__(self, weights: Any, device: str, preprocess: str) -> None:
        self.inverted = False


@register_extractor("broken-other-grid")
class Narrow(Histogram):
    def __call__(self, volumes: Any) -> Any:
        if len({*volumes.shape[1:]}) > 1:
            raise RuntimeError("cubes only")
        return super().__call__(volumes)


@register_extractor("broken-process-state")
class Setting(Histogram):
    def __init__(self, weights: Any, device: str, preprocess: str) -> None:
        super().__init__(weights, device, preprocess)
        os.environ["MEDDLED"] = str(time.time())


@register_extractor("broken-another-process")
class Here(Histogram):
    def __call__(self, volumes: Any) -> Any:
        return super().__call__(volumes) + os.getpid()


@register_generator("refusing")
class Refusing(Good):
    """It takes no grid at all."""

    def check(self, grid: tuple[int, int, int], label_names: Mapping[int, str]) -> None:
        raise InputError("not today")
