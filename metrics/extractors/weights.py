"""Where MedicalNet's weights are; apart from the network, so that a plan is made without torch."""

from __future__ import annotations

import os
from pathlib import Path

HUB_REPOSITORY = "TencentMedicalNet/MedicalNet-Resnet50"
HUB_FILE = "resnet_50_23dataset.pth"
WEIGHTS_VARIABLE = "VOXELBENCH_MEDICALNET"


def find_weights(
    explicit: str | Path | None = None, *, allow_download: bool = False
) -> Path | None:
    """The file of weights: given, named by VOXELBENCH_MEDICALNET, in the hub's cache, or fetched.

    To be called before a run starts, so that the extractor never changes in the middle of one.

    Args:
        explicit: a path that the user gave, before all others.
        allow_download: fetch from the Hugging Face hub if there is none on this machine.

    Returns:
        The file, or None if there is none.

    Raises:
        ValueError: a given or named file that does not exist, or a download that failed; neither
            falls back to another extractor silently.
    """
    for source, value in (
        ("the configuration", explicit),
        (f"the environment variable {WEIGHTS_VARIABLE}", os.environ.get(WEIGHTS_VARIABLE)),
    ):
        if value:
            if not Path(value).is_file():
                raise ValueError(
                    f"The MedicalNet weights '{value}' from {source} do not exist; check the path."
                )
            return Path(value)
    cached = _in_hub_cache()
    return _download() if cached is None and allow_download else cached


def _in_hub_cache() -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    cached = try_to_load_from_cache(HUB_REPOSITORY, HUB_FILE)
    return Path(cached) if isinstance(cached, str) else None


def _download() -> Path:
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(HUB_REPOSITORY, HUB_FILE))
    except Exception as error:  # the hub's client raises its transport's errors, of many types
        raise ValueError(
            f"Downloading {HUB_FILE} from {HUB_REPOSITORY} failed ({type(error).__name__}); "
            f"fetch it by hand and set {WEIGHTS_VARIABLE}, or choose the texture extractor."
        ) from error
