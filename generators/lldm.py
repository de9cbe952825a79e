"""3D-LLDM: a label LDM draws the anatomy, a ControlNet guides the image LDM to it.

After arXiv 2603.23845, which leaves open: whether the image LDM is frozen (default here: yes), the
form of the condition (here: the full-resolution one-hot label map, or the label's latents as eq. 6
reads), how much small structures count (`structure_weight`, `balance`), and how generated labels
are cleaned and which are rejected (`cleaning`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.errors import InputError
from bench.generator import Generator, GeneratorConfig, Stage, State, register_generator
from bench.volumes import Sample
from generators.autoencoders import (
    ImageAutoencoderConfig,
    check_autoencoder,
    latent_grid,
)
from generators.condition import check_weights, label_autoencoder
from generators.control import (
    ControlNetConfig,
    build_controlnet,
    check_embedding,
    condition_channels,
    guided,
    trained_condition,
)
from generators.control_fit import fit_controlnet
from generators.data import from_logits, label_ids, one_hot
from generators.diffusion import make_process
from generators.diffusion_fit import DiffusionConfig
from generators.label_autoencoder import LabelAutoencoderConfig, fit_label_autoencoder
from generators.label_cleaning import Cleaned, CleaningConfig, judge, rules_of
from generators.latents import fit_latent_diffusion, loaded
from generators.ldm import check_image_model, decode_images, image_autoencoder, image_stages
from generators.sampler import SamplingConfig, check_sampling, chunks, denoise
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
        check_embedding(
            c.controlnet, c.autoencoder.factor, c.label_autoencoder.factor, "controlnet"
        )
        check_weights(c.controlnet.structure_weight, label_names, "controlnet.structure_weight")
        check_sampling(c.sampling, c.ldm.process)
        check_sampling(c.label_sampling, c.label_ldm.process)
        rules_of(c.cleaning, label_names)

    def stages(self) -> Sequence[Stage]:
        c = self.config
        guide = ("label-autoencoder",) if c.controlnet.condition == "latent" else ()
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
                partial(fit_controlnet, c.controlnet, c.autoencoder, c.ldm, c.label_autoencoder),
                needs=("image-autoencoder", "image-ldm", *guide),
            ),
        )

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        maps = self.sample_labels(indices, run)
        return self._guide(maps, indices, run)

    def sample_labels(self, indices: Sequence[int], run: Run) -> Iterator[Labels]:
        """Cleaned label maps (D, H, W) of the volumes `indices`, in order.

        A draw that the rules reject is replaced by the same volume's next draw. Records the share
        of draws rejected, and of volumes whose draws all were, so that the least bad one is kept.
        """
        draw = self._label_sampler(run)
        n_drawn = n_rejected = n_kept = n_given_up = 0
        for rows in chunks(indices, self.config.label_sampling.batch_size):
            best: dict[int, Cleaned] = {}
            waiting = rows
            for attempt in range(self.config.cleaning.max_draws):
                for i, drawn in zip(waiting, draw(waiting, attempt), strict=True):
                    found = judge(drawn, run.label_names, self.config.cleaning)
                    n_drawn, n_rejected = n_drawn + 1, n_rejected + bool(found.faults)
                    best[i] = min(best.get(i, found), found, key=lambda cleaned: cleaned.badness)
                waiting = [i for i in waiting if best[i].faults]
                if not waiting:
                    break
            n_kept, n_given_up = n_kept + len(rows), n_given_up + len(waiting)
            run.record("share_rejected", n_rejected / n_drawn)
            run.record("share_kept_though_rejected", n_given_up / n_kept)
            yield from (best[i].label for i in rows)

    def _label_sampler(self, run: Run) -> Callable[[list[int], int], list[Labels]]:
        """(indices, attempt) -> label maps (D, H, W) as the label LDM draws them."""
        c = self.config
        ids = label_ids(run.label_names)
        network = label_autoencoder(c.label_autoencoder, run)
        state = run.state("label-ldm")
        channels = c.label_autoencoder.latent_channels
        unet = loaded(build_unet(c.label_ldm.unet, channels), state["unet"], run)
        process = make_process(c.label_ldm.process)
        shape = (channels, *latent_grid(c.label_autoencoder.factor, run.grid))

        def draw(rows: list[int], attempt: int) -> list[Labels]:
            z = denoise(process, unet, rows, shape, c.label_sampling, run, LABEL_STREAM, attempt)
            maps = []
            for one in (z / state["scale"]).split(1):
                with torch.no_grad(), run.autocast():
                    maps.append(from_logits(network.decode_volume(one), ids)[0])
            return maps

        return draw

    def sample_images(
        self, labels: Iterable[Labels], indices: Sequence[int], run: Run
    ) -> Iterator[Sample]:
        """Images for label maps (D, H, W) of one's own, one for each of `indices`, whose noise
        they are drawn from. The maps are taken as they are."""
        return self._guide(iter(labels), indices, run)

    def _guide(
        self, labels: Iterator[Labels], indices: Sequence[int], run: Run
    ) -> Iterator[Sample]:
        c = self.config
        network = image_autoencoder(c.autoencoder, run)
        state = run.state("controlnet")
        unet = loaded(build_unet(c.ldm.unet, c.autoencoder.latent_channels), state["unet"], run)
        channels = condition_channels(c.controlnet, c.label_autoencoder, run)
        controlnet = loaded(
            build_controlnet(c.controlnet, c.ldm, unet, channels), state["controlnet"], run
        )
        condition = trained_condition(
            c.controlnet, c.label_autoencoder, state["condition_scale"], run
        )
        process = make_process(c.ldm.process)
        shape = (c.autoencoder.latent_channels, *latent_grid(c.autoencoder.factor, run.grid))
        for rows in chunks(indices, c.sampling.batch_size):
            maps = [next(labels) for _ in rows]
            predict = guided(unet, controlnet, condition(np.stack(maps)))
            z = denoise(process, predict, rows, shape, c.sampling, run, IMAGE_STREAM)
            images = decode_images(network, z / state["scale"], run)
            for image, label in zip(images, maps, strict=True):
                yield Sample(image, label)


def _fit_label_ldm(
    autoencoder: LabelAutoencoderConfig,
    ldm: DiffusionConfig,
    train_set: VolumeSet,
    val: VolumeSet,
    run: Run,
) -> State:
    network = label_autoencoder(autoencoder, run)
    ids = label_ids(run.label_names)

    def picture(z: Tensor) -> NDArray[np.float32]:
        """The classes of the maps of latents z, spread over [0, 1]."""
        with torch.no_grad(), run.autocast():
            maps = from_logits(network.decode_volume(z), ids)
        return (np.searchsorted(ids, maps) / max(1, len(ids) - 1)).astype(np.float32)

    return fit_latent_diffusion(
        ldm,
        lambda volumes, i: network.encode_volume(one_hot(volumes.labels([i]), ids, run.device)),
        train_set,
        val,
        run,
        picture,
    )
