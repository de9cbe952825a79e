"""Distances between sets of features: our call and other libraries', ready to be timed.

Each function gets the inputs and gives the call. What a peer wants and ours does not, tensors and
networks that do nothing, is made before.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_inputs import Call, Features, tensors

# --- Fréchet distance ---------------------------------------------------------------------------


def frechet(data: Features) -> Call:
    from metrics.frechet import frechet_distance

    return lambda: frechet_distance(*data)


def frechet_monai(data: Features) -> Call:
    from monai.metrics import FIDMetric

    real, synthetic = tensors(data)
    return lambda: FIDMetric()(synthetic, real)


def frechet_scipy(data: Features) -> Call:
    """The definition, written down with `scipy.linalg.sqrtm`."""
    from scipy.linalg import sqrtm

    def call() -> float:
        (mean_x, cov_x), (mean_y, cov_y) = _statistics(data.real), _statistics(data.synthetic)
        root = np.trace(sqrtm(cov_x @ cov_y)).real
        return float(
            np.square(mean_x - mean_y).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * root
        )

    return call


def frechet_scipy_small(data: Features) -> Call:
    """As `frechet_scipy`, in the n × n form where that is smaller: no singular d × d root.

    The trace of a root is the sum of the roots of the eigenvalues, and ``Aᵀ A Bᵀ B`` has those of
    ``(A Bᵀ)(A Bᵀ)ᵀ`` and zeros.
    """
    from scipy.linalg import sqrtm

    n, d = data.real.shape
    if n > d:
        return frechet_scipy(data)

    def call() -> float:
        means = [rows.mean(axis=0) for rows in data]
        centred = [
            (rows - mean) / np.sqrt(len(rows) - 1) for rows, mean in zip(data, means, strict=True)
        ]
        product = centred[0] @ centred[1].T
        traces = sum(np.square(rows).sum() for rows in centred)
        root = np.trace(sqrtm(product @ product.T)).real
        return float(np.square(means[0] - means[1]).sum() + traces - 2 * root)

    return call


def root_error(data: Features) -> float:
    """How far rounding alone may put a Fréchet distance that takes the root of a d × d product.

    With n < d rows in the smaller set, d - n + 1 eigenvalues of the product are 0 and come out as
    some ±ε of the largest one; their roots, √ε each, are summed into the trace, twice.
    """
    n, d = min(map(len, data)), data.real.shape[1]
    centred = [(rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in data]
    largest = np.linalg.norm(centred[0] @ centred[1].T, 2)
    return 2.0 * max(d - n + 1, 0) * float(np.sqrt(np.finfo(np.float64).eps) * largest)


def frechet_torchmetrics(data: Features) -> Call:
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, synthetic = tensors(data)
    network = _as_they_are(real.shape[1])

    def call() -> Any:
        metric = FrechetInceptionDistance(feature=network).set_dtype(real.dtype)
        metric.update(real, real=True)
        metric.update(synthetic, real=False)
        return metric.compute()

    return call


def frechet_torch_fidelity(data: Features) -> Call:
    from torch_fidelity import metric_fid as fid

    real, synthetic = tensors(data)

    def call() -> float:
        sets = [fid.fid_features_to_statistics(rows) for rows in (synthetic, real)]
        return float(fid.fid_statistics_to_metric(*sets, verbose=False)[fid.KEY_METRIC_FID])

    return call


def frechet_pytorch_fid(data: Features) -> Call:
    from pytorch_fid.fid_score import calculate_frechet_distance

    return lambda: calculate_frechet_distance(*_statistics(data.real), *_statistics(data.synthetic))


def _statistics(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


def _as_they_are(d: int) -> Any:
    """A network for torchmetrics that gives its input back: the features have been extracted."""
    from torch import nn

    network = nn.Identity()
    network.num_features = d
    return network


# --- kernel distance ----------------------------------------------------------------------------


def kernel(data: Features) -> Call:
    from metrics.kernel import kernel_distance

    return lambda: kernel_distance(*data)


def kernel_torchmetrics(data: Features) -> Call:
    from torchmetrics.image.kid import KernelInceptionDistance

    real, synthetic = tensors(data)
    network = _as_they_are(real.shape[1])

    def call() -> Any:
        metric = KernelInceptionDistance(feature=network, subsets=1, subset_size=len(real))
        metric.update(real, real=True)
        metric.update(synthetic, real=False)
        return metric.compute()[0]

    return call


def kernel_torch_fidelity(data: Features) -> Call:
    from torch_fidelity import metric_kid as kid

    real, synthetic = tensors(data)
    options = {"kid_subsets": 1, "kid_subset_size": len(real), "verbose": False}
    return lambda: kid.kid_features_to_metric(synthetic, real, **options)[kid.KEY_METRIC_KID_MEAN]


# --- precision, recall, density, coverage -------------------------------------------------------


def manifold(data: Features) -> Call:
    from metrics.manifold import manifold

    return lambda: manifold(*data, k=5)


def manifold_prdc(data: Features) -> Call:
    from prdc import compute_prdc

    def call() -> list[float]:
        with redirect_stdout(StringIO()):
            values = compute_prdc(*data, nearest_k=5)
        return [values[name] for name in ("precision", "recall", "density", "coverage")]

    return call


def precision_recall(data: Features) -> Call:
    call = manifold(data)
    return lambda: call()[:2]


def precision_recall_torch_fidelity(data: Features) -> Call:
    from torch_fidelity import metric_prc as prc

    real, synthetic = tensors(data)

    def call() -> list[float]:
        values = prc.prc_features_to_metric(synthetic, real, prc_neighborhood=5, verbose=False)
        return [values[prc.KEY_METRIC_PRECISION], values[prc.KEY_METRIC_RECALL]]

    return call
