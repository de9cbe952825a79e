"""HA-GAN: hierarchical amortised GAN (Sun et al., JBHI 2022), with or without label maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from bench.errors import InputError
from bench.generator import Generator, GeneratorConfig, State, register_generator
from bench.training_config import TrainingConfig

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import Sample, VolumeSet

SMALLEST_SIDE = 32
SIDE_MULTIPLE = 4  # a latent voxel covers 4 x 4 x 4 voxels


class HAGANTraining(TrainingConfig):
    """Defaults are the paper's; the average is of the generator's weights."""

    steps: int = Field(80_000, gt=0, description="steps of each network")
    batch_size: int = Field(4, gt=0, description="volumes per step")
    learning_rate: float = Field(1e-4, gt=0, description="of G, E and Sub_E")
    betas: tuple[float, float] = Field((0.0, 0.999), description="momenta of all four Adams")


class HAGANConfig(GeneratorConfig):
    """Defaults are the paper's."""

    labels: Literal["none", "joint"] = Field(
        "none", description="joint: generate the label map with the image"
    )
    latent_dim: int = Field(1024, gt=0, description="length of the noise vector z")
    width: float = Field(
        1.0, gt=0, le=4, description="all channel numbers are the paper's times this"
    )
    discriminator_learning_rate: float = Field(4e-4, gt=0, description="learning rate of D")
    train_encoders: bool = Field(
        True, description="also train E and Sub_E; samples do not depend on them"
    )
    augment: tuple[Literal["flip", "translate", "contrast"], ...] = Field(
        (), description="changes of all that the discriminator sees; for few training cases"
    )
    batch_spread: bool = Field(
        False, description="D sees how much a batch varies; against drawing the same again"
    )
    mode_seeking: float = Field(
        0.0,
        ge=0,
        description="weight of the distance of two noises over that of their volumes, in G's loss; "
        "against drawing the same again; 0 is off",
    )
    r1_weight: float = Field(
        0.0, ge=0, description="weight of the squared gradient of D at real cases; 0 is off"
    )
    r1_every: int = Field(
        16, gt=0, description="steps between these penalties, each weighted so many times"
    )
    training: HAGANTraining = Field(
        HAGANTraining(), description="length, batch, averaging, and the Adam of each network"
    )

    @model_validator(mode="after")
    def _batches_can_vary(self) -> Self:
        for name in ("batch_spread", "mode_seeking"):
            if getattr(self, name) and self.training.batch_size == 1:
                raise ValueError(
                    f"{name} compares the cases of a batch, training.batch_size is 1; make it 2 "
                    f"or more, or turn {name} off."
                )
        return self


@register_generator("ha-gan")
class HAGAN(Generator):
    """HA-GAN (Sun et al., JBHI 2022): a GAN trained on a low-resolution volume and a thick slab.

    Differences from the public code: the slab's position is drawn on the latent grid, so the crops
    of image and latent grid agree; cases are shuffled and crops seeded; the low-resolution volume
    is a mean of voxels, not every fourth voxel.
    """

    Config = HAGANConfig
    config: HAGANConfig

    @property
    def labels(self) -> Literal["none", "joint"]:  # type: ignore[override]
        return self.config.labels

    def check(self, grid: tuple[int, int, int], label_names: Mapping[int, str]) -> None:
        """InputError unless every side is a multiple of 4 and at least 32, and, in joint mode,
        there are structures."""
        if len(grid) != 3 or any(n < SMALLEST_SIDE or n % SIDE_MULTIPLE for n in grid):
            raise InputError(
                f"Generator ha-gan cannot take the grid {grid}: it needs three sides that are "
                f"multiples of {SIDE_MULTIPLE} and at least {SMALLEST_SIDE}; crop or pad the data."
            )
        if self.labels == "joint":
            from generators.joint import check_joint

            check_joint(self.name, self.labels, label_names)

    def fit(self, train: VolumeSet, val: VolumeSet, run: Run) -> State:
        """Train all networks on `train` (a GAN has no validation loss); keep the generator."""
        from generators.ha_gan import model

        return model.fit(self.config, train, run)

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        """Volumes of the whole grid, one at a time, from the generator in evaluation mode."""
        from generators.ha_gan import model

        return model.sample(self.config, indices, run)
