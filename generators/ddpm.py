"""3D-DDPM: diffusion of the voxels themselves (Ho et al., arXiv 2006.11239, in 3D).

In joint mode the label map is diffused with the image: one channel for each class, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.utils import pixelshuffle, pixelunshuffle
from pydantic import Field
from torch import Tensor

from bench.generator import Generator, GeneratorConfig, Stage, State, register_generator
from bench.training import Batches
from generators.data import to_unit_range
from generators.diffusion import ProcessConfig, make_process
from generators.diffusion_fit import VALIDATION_CASES, DiffusionConfig, drawn, fit_diffusion
from generators.joint import Channels, Labels, check_joint
from generators.latents import loaded
from generators.sampler import SamplingConfig, check_sampling, chunks, denoise
from generators.unet import Grid, UNetConfig, build_unet, check_divisible, check_unet

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import Sample, VolumeSet

VOXEL_RANGE = (-1.0, 1.0)


class PixelUNetConfig(UNetConfig):
    """Size of the U-Net on voxels."""

    channels: tuple[int, ...] = Field(
        (64, 64, 128, 192, 256), min_length=1, description="width of each level"
    )
    num_res_blocks: int = Field(1, gt=0, description="residual blocks in each level")
    attention_levels: tuple[bool, ...] = Field(
        (False, False, False, False, True),
        description="which levels attend; the bottleneck always does",
    )


class PixelProcessConfig(ProcessConfig):
    """The noise process on voxels."""

    schedule: Literal["scaled_linear_beta", "linear_beta", "cosine"] = Field(
        "cosine", description="noise schedule of Gaussian diffusion; not used by flow"
    )


class PixelDiffusionConfig(DiffusionConfig):
    """Diffusion of voxels."""

    space_to_depth: int = Field(
        1,
        gt=0,
        description="blocks of this side become channels first: a large saving at full size",
    )
    unet: PixelUNetConfig = Field(PixelUNetConfig(), description="network")
    process: PixelProcessConfig = Field(PixelProcessConfig(), description="noise and prediction")
    loss: Literal["l1", "l2"] = Field("l1", description="distance of output and target")


class PixelSamplingConfig(SamplingConfig):
    """How volumes are drawn: the full chain of DDPM by default."""

    steps: int = Field(1000, gt=0, description="network evaluations for one volume")
    eta: float = Field(
        1.0, ge=0, le=1, description="noise in Gaussian steps: 0 is DDIM, 1 with all steps DDPM"
    )


class DDPM3DConfig(GeneratorConfig):
    """Configuration of 3D-DDPM."""

    labels: Labels = Field("none", description="joint: generate the label map with the image")
    diffusion: PixelDiffusionConfig = Field(
        PixelDiffusionConfig(), description="network, process, training"
    )
    sampling: PixelSamplingConfig = Field(
        PixelSamplingConfig(), description="how volumes are drawn"
    )


@register_generator("3d-ddpm")
class DDPM3D(Generator):
    """3D diffusion in pixel space."""

    Config = DDPM3DConfig
    config: DDPM3DConfig

    @property
    def labels(self) -> Labels:  # type: ignore[override]
        return self.config.labels

    def check(self, grid: Grid, label_names: Mapping[int, str]) -> None:
        c = self.config.diffusion
        check_joint(self.name, self.labels, label_names)
        check_divisible(grid, c.space_to_depth, "diffusion.space_to_depth")
        check_unet(c.unet, self._shape(Channels(), grid)[1:], "diffusion.unet")
        check_sampling(self.config.sampling, c.process)

    def stages(self) -> Sequence[Stage]:
        return (Stage(self._stage, self.config.diffusion, self.fit),)

    @property
    def _stage(self) -> str:
        return "pixel-ddpm" if self.labels == "none" else f"pixel-ddpm-{self.labels}"

    def fit(self, train: VolumeSet, val: VolumeSet, run: Run) -> State:
        c = self.config.diffusion
        channels = Channels.of(self.labels, run.label_names)

        def packed(volumes: VolumeSet, rows: Sequence[int]) -> Tensor:
            x = channels.batch(volumes, rows, run.device)
            blocks: Tensor = pixelunshuffle(x, 3, c.space_to_depth)
            return blocks

        order = Batches(len(train), c.training.batch_size, run.seed)
        watched = range(min(len(val), VALIDATION_CASES))
        held_out = packed(val, watched) if watched else torch.empty(0)
        torch.manual_seed(run.seed)
        kept = fit_diffusion(
            c,
            self._network(channels),
            make_process(c.process),
            lambda step: packed(train, order(step)),
            held_out,
            run,
            preview=drawn(
                make_process(c.process, clip=VOXEL_RANGE),
                self._shape(channels, run.grid),
                lambda x: to_unit_range(pixelshuffle(x, 3, c.space_to_depth)[:, :1]),
                run,
                c.training.batch_size,
            ),
        )
        return {"unet": kept}

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        channels = Channels.of(self.labels, run.label_names)
        sampling, block = self.config.sampling, self.config.diffusion.space_to_depth
        unet = loaded(self._network(channels), run.state(self._stage)["unet"], run)
        process = make_process(self.config.diffusion.process, clip=VOXEL_RANGE)
        shape = self._shape(channels, run.grid)
        for rows in chunks(indices, sampling.batch_size):
            x = denoise(process, unet, rows, shape, sampling, run)
            yield from channels.samples(pixelshuffle(x, 3, block))

    def _network(self, channels: Channels) -> DiffusionModelUNet:
        c = self.config.diffusion
        return build_unet(c.unet, channels=channels.count * c.space_to_depth**3)

    def _shape(self, channels: Channels, grid: Grid) -> tuple[int, int, int, int]:
        """Of what is diffused: channels and grid after packing."""
        block = self.config.diffusion.space_to_depth
        a, b, c = (side // block for side in grid)
        return channels.count * block**3, a, b, c
