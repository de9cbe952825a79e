"""3D-LLDM: a label LDM draws the anatomy, a ControlNet guides the image LDM to it.

After arXiv 2603.23845, which leaves open: whether the image LDM is frozen (default here: yes), the
form of the condition (here: the full-resolution one-hot label map), and how generated labels are
cleaned (here: `cleaning`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from bench.errors import InputError
from bench.generator import Generator, GeneratorConfig, Stage, State, register_generator
from bench.volumes import Sample
from generators.autoencoders import (
    ImageAutoencoderConfig,
    KLAutoencoder,
    check_autoencoder,
    latent_grid,
)
from generators.control import (
    ControlNetConfig,
    build_controlnet,
    check_embedding,
    fit_controlnet,
    guided,
)
from generators.data import from_logits, label_ids, one_hot
from generators.diffusion import SamplingConfig, check_sampling, chunks, denoise, make_process
from generators.diffusion_fit import DiffusionConfig
from generators.label_autoencoder import LabelAutoencoderConfig, fit_label_autoencoder
from generators.label_cleaning import CleaningConfig, check_cleaning, clean
from generators.latents import fit_latent_diffusion, loaded
from generators.ldm import check_image_model, decode_images, image_autoencoder, image_stages
from generators.unet import Grid, build_unet, check_unet

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

Labels = NDArray[np.uint8]
IMAGE_STREAM, LABEL_STREAM = 0, 1


class LLDM3DConfig(GeneratorConfig):
    """Configuration of 3D-LLDM."""

    autoencoder: ImageAutoencoderConfig = Field(
        ImageAutoencoderConfig(), description="image autoencoder, shared with LDM-VAE where equal"
    )
    ldm: DiffusionConfig = Field(
        DiffusionConfig(), description="image LDM, shared with LDM-VAE where equal"
    )
    label_autoencoder: LabelAutoencoderConfig = Field(
        LabelAutoencoderConfig(), description="label autoencoder"
    )
    label_ldm: DiffusionConfig = Field(DiffusionConfig(), description="diffusion in label latents")
    controlnet: ControlNetConfig = Field(
        ControlNetConfig(), description="guidance of the image LDM by labels"
    )
    label_sampling: SamplingConfig = Field(SamplingConfig(), description="how label maps are drawn")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how images are drawn")
    cleaning: CleaningConfig = Field(
        CleaningConfig(), description="cleaning of generated label maps"
    )


@register_generator("3d-lldm")
class LLDM3D(Generator):
    """Label-guided 3D latent diffusion: yields images with the label maps they were drawn for."""

    Config = LLDM3DConfig
    config: LLDM3DConfig
    labels = "native"

    def check(self, grid: Grid, label_names: Mapping[int, str]) -> None:
        c = self.config
        if len(label_ids(label_names)) < 2:
            raise InputError(
                f"3D-LLDM needs labelled structures, the data have {dict(label_names)}; "
                "label the data first."
            )
        check_image_model(c.autoencoder, c.ldm, grid)
        check_autoencoder(c.label_autoencoder, grid, "label_autoencoder")
        check_unet(
            c.label_ldm.unet, latent_grid(c.label_autoencoder.factor, grid), "label_ldm.unet"
        )
        check_embedding(c.controlnet, c.autoencoder.factor, "controlnet")
        check_sampling(c.sampling, c.ldm.process)
        check_sampling(c.label_sampling, c.label_ldm.process)
        check_cleaning(c.cleaning, label_names)

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return (
            *image_stages(c.autoencoder, c.ldm),
            Stage(
                "label-autoencoder",
                c.label_autoencoder,
                partial(fit_label_autoencoder, c.label_autoencoder),
            ),
            Stage(
                "label-ldm",
                c.label_ldm,
                partial(_fit_label_ldm, c.label_autoencoder, c.label_ldm),
                needs=("label-autoencoder",),
            ),
            Stage(
                "controlnet",
                c.controlnet,
                partial(fit_controlnet, c.controlnet, c.autoencoder, c.ldm),
                needs=("image-autoencoder", "image-ldm"),
            ),
        )

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        maps = self.sample_labels(indices, run)
        return self._guide(maps, indices, run)

    def sample_labels(self, indices: Sequence[int], run: Run) -> Iterator[Labels]:
        """Cleaned label maps (D, H, W) of the volumes `indices`, in order."""
        c = self.config
        ids = label_ids(run.label_names)
        network = _label_autoencoder(c.label_autoencoder, run)
        state = run.state("label-ldm")
        unet = loaded(
            build_unet(c.label_ldm.unet, c.label_autoencoder.latent_channels), state["unet"], run
        )
        process = make_process(c.label_ldm.process)
        shape = (
            c.label_autoencoder.latent_channels,
            *latent_grid(c.label_autoencoder.factor, run.grid),
        )
        for rows in chunks(indices, c.label_sampling.batch_size):
            z = denoise(process, unet, rows, shape, c.label_sampling, run, LABEL_STREAM)
            for one in (z / state["scale"]).split(1):
                with torch.no_grad(), run.autocast():
                    logits = network.decode(one)
                yield clean(from_logits(logits, ids)[0], run.label_names, c.cleaning)

    def sample_images(
        self, labels: Sequence[Labels], indices: Sequence[int], run: Run
    ) -> Iterator[Sample]:
        """Images for label maps (D, H, W) of one's own, with the noise of the volumes `indices`."""
        return self._guide(iter(labels), indices, run)

    def _guide(
        self, labels: Iterator[Labels], indices: Sequence[int], run: Run
    ) -> Iterator[Sample]:
        c = self.config
        ids = label_ids(run.label_names)
        network = image_autoencoder(c.autoencoder, run)
        state = run.state("controlnet")
        unet = loaded(build_unet(c.ldm.unet, c.autoencoder.latent_channels), state["unet"], run)
        controlnet = loaded(
            build_controlnet(c.controlnet, c.ldm, unet, len(ids)), state["controlnet"], run
        )
        process = make_process(c.ldm.process)
        shape = (c.autoencoder.latent_channels, *latent_grid(c.autoencoder.factor, run.grid))
        for rows in chunks(indices, c.sampling.batch_size):
            maps = [next(labels) for _ in rows]
            predict = guided(unet, controlnet, one_hot(np.stack(maps), ids, run.device))
            z = denoise(process, predict, rows, shape, c.sampling, run, IMAGE_STREAM)
            images = decode_images(network, z / state["scale"], run)
            for image, label in zip(images, maps, strict=True):
                yield Sample(image, label)


def _label_autoencoder(config: LabelAutoencoderConfig, run: Run) -> KLAutoencoder:
    network: KLAutoencoder = loaded(
        KLAutoencoder(config, channels=len(label_ids(run.label_names))),
        run.state("label-autoencoder")["autoencoder"],
        run,
    )
    return network


def _fit_label_ldm(
    autoencoder: LabelAutoencoderConfig,
    ldm: DiffusionConfig,
    train_set: VolumeSet,
    val: VolumeSet,
    run: Run,
) -> State:
    network = _label_autoencoder(autoencoder, run)
    ids = label_ids(run.label_names)
    return fit_latent_diffusion(
        ldm,
        lambda volumes, i: network.encode(one_hot(volumes.labels([i]), ids, run.device))[0],
        train_set,
        val,
        run,
    )
