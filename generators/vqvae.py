"""The VQ-VAE (van den Oord et al., arXiv 1711.00937), with a codebook that stays in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer, VectorQuantizer
from monai.networks.nets import VQVAE
from monai.networks.utils import pixelshuffle, pixelunshuffle
from pydantic import Field
from torch import Tensor, nn

from bench.errors import InputError
from bench.generator import State
from bench.training import TrainingConfig
from generators.data import images
from generators.diffusion_fit import VALIDATION_CASES
from generators.reconstruction import (
    ReconstructionConfig,
    check_reconstruction,
    fit_reconstruction,
)
from generators.tiling import TiledAutoencoder
from generators.unet import Grid

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet


USAGE_CASES = 512
"""Training volumes, at most, over which the use of the codebook is counted in the end."""


class VQTraining(TrainingConfig):
    """Training of the VQ-VAE; the last weights are kept, since averaged ones would lag behind a
    codebook that is an average itself and jumps where a code restarts."""

    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="decay of the averaged weights that are kept; 0 is off"
    )


class VQVAEConfig(ReconstructionConfig):
    """A vector-quantised image autoencoder."""

    space_to_depth: int = Field(1, gt=0, description="blocks of this side become channels first")
    channels: tuple[int, ...] = Field(
        (128, 256), min_length=1, description="width of each level; each halves the grid"
    )
    num_res_layers: int = Field(2, gt=0, description="residual layers in each level")
    num_embeddings: int = Field(1024, gt=1, description="codes in the codebook")
    embedding_dim: int = Field(8, gt=0, description="length of a code: channels of the latent grid")
    commitment_cost: float = Field(0.25, ge=0, description="weight of the commitment term")
    decay: float = Field(0.99, gt=0, lt=1, description="decay of the codebook's moving averages")
    restart_every: int = Field(
        100, ge=0, description="steps after which unused codes restart; 0 is never"
    )
    training: VQTraining = Field(VQTraining(), description="optimisation")

    @property
    def factor(self) -> int:
        """Voxels of the image along one side of a latent voxel."""
        return self.space_to_depth << len(self.channels)

    @property
    def code_channels(self) -> int:
        """Numbers in the code of factor³ voxels, as the LDM sees it before it is quantised."""
        return self.embedding_dim


class DataDrivenQuantizer(EMAQuantizer):  # type: ignore[misc]  # MONAI has no types
    """EMAQuantizer whose codes begin as encodings and begin anew where nothing chooses them.

    The first batch in training initialises the codebook; every `restart_every` batches, codes
    that no encoding chose since the last time are replaced by encodings of the batch (as in
    Jukebox, arXiv 2005.00341). Stays in float32 on every device.
    """

    uses: Tensor
    age: Tensor

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(
            spatial_dims=3,
            num_embeddings=config.num_embeddings,
            embedding_dim=config.embedding_dim,
            commitment_cost=config.commitment_cost,
            decay=config.decay,
        )
        self.restart_every = config.restart_every
        self.register_buffer("uses", torch.zeros(config.num_embeddings))
        self.register_buffer("age", torch.zeros((), dtype=torch.long))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantised inputs (straight-through), commitment loss, codes (B, D, H, W)."""
        inputs = inputs.float()
        with torch.autocast(inputs.device.type, enabled=False):
            if self.training:
                self._maintain(inputs.detach())
            quantized, loss, codes = super().forward(inputs)
            if self.training:
                self.uses += torch.bincount(codes.flatten(), minlength=self.num_embeddings)
        return quantized, loss, codes

    def _maintain(self, inputs: Tensor) -> None:
        age = int(self.age)
        if age == 0:
            self._restart(torch.ones_like(self.uses, dtype=torch.bool), inputs)
        elif self.restart_every and age % self.restart_every == 0:
            self._restart(self.uses == 0, inputs)
            self.uses.zero_()
        self.age += 1

    def _restart(self, dead: Tensor, inputs: Tensor) -> None:
        """Put encodings of the batch in place of the codes `dead`, with an even share of use."""
        vectors = inputs.movedim(1, -1).reshape(-1, self.embedding_dim)
        chosen = vectors[torch.randint(len(vectors), (int(dead.sum()),), device=vectors.device)]
        share = len(vectors) / self.num_embeddings
        self.embedding.weight.data[dead] = chosen
        self.ema_cluster_size[dead] = share
        self.ema_w[dead] = chosen * share


class ImageVQVAE(TiledAutoencoder):
    """MONAI's VQVAE with the quantiser above, behind an optional space-to-depth.

    Its latents are the encodings before quantisation, which are continuous; decoding quantises.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config)
        self.block = config.space_to_depth
        packed, levels = self.block**3, len(config.channels)
        self.net = VQVAE(
            spatial_dims=3,
            in_channels=packed,
            out_channels=packed,
            channels=config.channels,
            num_res_layers=config.num_res_layers,
            num_res_channels=config.channels,
            downsample_parameters=((2, 4, 1, 1),) * levels,
            upsample_parameters=((2, 4, 1, 1, 0),) * levels,
            num_embeddings=config.num_embeddings,
            embedding_dim=config.embedding_dim,
        )
        self.net.quantizer = VectorQuantizer(DataDrivenQuantizer(config))

    def encode(self, x: Tensor) -> Tensor:
        """Encodings (B, embedding_dim, d, h, w) of x (B, 1, D, H, W), not yet quantised."""
        z: Tensor = self.net.encode(pixelunshuffle(x, 3, self.block))
        return z

    def latents(self, x: Tensor) -> Tensor:
        """Encodings before quantisation, which decoding repeats."""
        return self.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 1, D, H, W) of latents, which are quantised first."""
        return self.forward_latents(z)[0]

    def forward_latents(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Image of quantised latents, and the commitment loss."""
        quantized, loss = self.net.quantize(z)
        return pixelshuffle(self.net.decode(quantized), 3, self.block), loss

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and commitment loss."""
        return self.forward_latents(self.encode(x))

    def codes(self, x: Tensor) -> Tensor:
        """Index of the code of each latent voxel, (B, d, h, w); in eval mode it learns nothing."""
        chosen: Tensor = self.net.quantizer.quantize(self.encode_volume(x))
        return chosen


def code_usage(counts: Tensor) -> tuple[float, float]:
    """Share of the codes used, and the perplexity exp(−Σ p log p) of their frequencies p.

    `counts` (codes,) says how often each was chosen; together at least once.
    """
    p = counts[counts > 0].double() / counts.sum()
    return len(p) / len(counts), float(torch.exp(-(p * p.log()).sum()))


def check_vqvae(config: VQVAEConfig, grid: Grid, where: str) -> None:
    """InputError if the VQ-VAE cannot take `grid`."""
    if config.training.ema_decay:
        raise InputError(
            f"{where}.training.ema_decay is {config.training.ema_decay}, but averaged weights do "
            "not fit a codebook that restarts; set it to 0."
        )
    check_reconstruction(config, grid, where)


def fit_vqvae(config: VQVAEConfig, train_set: VolumeSet, val: VolumeSet, run: Run) -> State:
    """Stage "image-vqvae": L1 + commitment; codes used and their perplexity are recorded."""
    torch.manual_seed(run.seed)
    network = ImageVQVAE(config)

    def usage(net: nn.Module, cases: int) -> dict[str, float]:
        counts = torch.zeros(config.num_embeddings, dtype=torch.long)
        for i in range(min(len(train_set), cases)):
            with torch.no_grad(), run.autocast():
                codes = cast(ImageVQVAE, net).codes(images(train_set, [i], run.device))
            counts += torch.bincount(codes.flatten().cpu(), minlength=config.num_embeddings)
        used, perplexity = code_usage(counts)
        return {"codes_used": used, "perplexity": perplexity}

    kept = fit_reconstruction(
        network,
        lambda net, x: net(x),
        config,
        config.training,
        train_set,
        val,
        run,
        lambda net: usage(net, VALIDATION_CASES),
    )
    for metric, value in usage(network.to(run.device).eval(), USAGE_CASES).items():
        run.record(metric, value)
    return {"autoencoder": kept}
