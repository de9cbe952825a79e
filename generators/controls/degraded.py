"""Controls that are real volumes made worse by a known amount."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage, special

from bench.errors import InputError
from bench.generator import GeneratorConfig, register_generator
from bench.volumes import Image, Sample
from generators.controls.draws import BLOCKS, VOXELS, Control, fresh_draw, normal, order

if TYPE_CHECKING:
    from bench.run import Run

V = TypeVar("V", bound=np.generic)


class Degraded(Control):
    """The oracle's volume i, its image changed by `degrade` and its label kept."""

    needs_held = True

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        for i in indices:
            real = fresh_draw(i, run)
            yield Sample(np.clip(self.degrade(real.image, i, run), 0, 1), real.label)

    @abstractmethod
    def degrade(self, image: Image, index: int, run: Run) -> Image:
        """Image (D, H, W) in [0, 1] made worse; values beyond [0, 1] are clipped later."""


class BlurConfig(GeneratorConfig):
    """How much is smoothed away."""

    sigma: float = Field(1.0, gt=0, description="of the Gaussian, in voxels")


class Blur(Degraded):
    """The oracle's images smoothed by a Gaussian; beyond the border the last voxel goes on."""

    Config = BlurConfig

    def degrade(self, image: Image, index: int, run: Run) -> Image:
        smooth: Image = ndimage.gaussian_filter(image, self.config.sigma, mode="nearest")
        return smooth


class BlurHalfConfig(BlurConfig):
    """How much is smoothed away."""

    sigma: float = Field(0.5, gt=0, description="of the Gaussian, in voxels")


class BlurTwoConfig(BlurConfig):
    """How much is smoothed away."""

    sigma: float = Field(2.0, gt=0, description="of the Gaussian, in voxels")


@register_generator("blur-0.5", control=True)
class BlurHalf(Blur):
    """The oracle's images blurred by half a voxel."""

    Config = BlurHalfConfig


@register_generator("blur-1", control=True)
class BlurOne(Blur):
    """The oracle's images blurred by one voxel."""


@register_generator("blur-2", control=True)
class BlurTwo(Blur):
    """The oracle's images blurred by two voxels."""

    Config = BlurTwoConfig


class NoiseConfig(GeneratorConfig):
    """How much noise is added."""

    sigma: float = Field(0.02, gt=0, description="standard deviation, of the image's range of 1")


class Noise(Degraded):
    """The oracle's images under Gaussian noise, the same noise at every strength."""

    Config = NoiseConfig

    def degrade(self, image: Image, index: int, run: Run) -> Image:
        noisy: Image = image + self.config.sigma * normal(index, image.shape, run, VOXELS)
        return noisy


class NoiseStrongConfig(NoiseConfig):
    """How much noise is added."""

    sigma: float = Field(0.1, gt=0, description="standard deviation, of the image's range of 1")


@register_generator("noise-0.02", control=True)
class NoiseWeak(Noise):
    """The oracle's images under noise of 2 % of their range."""


@register_generator("noise-0.1", control=True)
class NoiseStrong(Noise):
    """The oracle's images under noise of 10 % of their range."""

    Config = NoiseStrongConfig


@register_generator("pure-noise", control=True)
class PureNoise(Degraded):
    """Uniform noise with the oracle's labels; there is nothing to see."""

    def degrade(self, image: Image, index: int, run: Run) -> Image:
        # The normal distribution's own probabilities are uniform on [0, 1].
        uniform: NDArray[np.float32] = special.ndtr(normal(index, image.shape, run, VOXELS))
        return uniform


class ScrambleConfig(GeneratorConfig):
    """How finely anatomy is taken apart."""

    blocks: int = Field(4, ge=2, description="blocks along each side, so blocks^3 are permuted")


@register_generator("scramble", control=True)
class Scramble(Control):
    """The oracle's volumes cut into blocks that are permuted, labels alike."""

    Config = ScrambleConfig
    needs_held = True

    def check(self, grid: tuple[int, int, int], label_names: Mapping[int, str]) -> None:
        blocks = self.config.blocks
        if any(side % blocks for side in grid):
            raise InputError(
                f"The control {self.name!r} cuts each side of the grid {grid} into {blocks} equal "
                f"blocks; set generators.{self.name}.blocks to a divisor of all sides."
            )

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        for i in indices:
            real = fresh_draw(i, run)
            places = order(self.config.blocks**3, run, BLOCKS, i)
            label = None if real.label is None else permute_blocks(real.label, places)
            yield Sample(permute_blocks(real.image, places), label)


def permute_blocks(volume: NDArray[V], places: NDArray[np.intp]) -> NDArray[V]:
    """`volume` (D, H, W) cut into equal blocks of which number i comes from number places[i].

    places: a permutation of n^3 blocks, (n^3,); n must divide the sides.
    """
    n = round(len(places) ** (1 / 3))
    d, h, w = (side // n for side in volume.shape)
    blocks = volume.reshape(n, d, n, h, n, w).transpose(0, 2, 4, 1, 3, 5).reshape(-1, d, h, w)
    moved = blocks[places].reshape(n, n, n, d, h, w).transpose(0, 3, 1, 4, 2, 5)
    return moved.reshape(volume.shape)
