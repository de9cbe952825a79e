"""Which feature extractor a run uses: decided once, before it starts."""

from __future__ import annotations

from bench.config import ScoringConfig
from bench.errors import InputError
from bench.plan import ExtractorFacts


def decide_extractor(scoring: ScoringConfig) -> ExtractorFacts:
    """MedicalNet where its weights are found and load, else (for "auto") the offline descriptor.

    InputError if MedicalNet is asked for without weights, or if weights are another network's.
    """
    from metrics.extractors.texture import TextureExtractor
    from metrics.extractors.weights import HUB_FILE, HUB_REPOSITORY, WEIGHTS_VARIABLE, find_weights

    texture = ExtractorFacts(TextureExtractor.name, TextureExtractor.version)
    if scoring.extractor == "texture":
        return texture
    try:
        path = find_weights(scoring.weights, allow_download=scoring.extractor == "medicalnet")
        if path is None:
            if scoring.extractor == "auto":
                return texture
            raise ValueError(
                f"No MedicalNet weights were found; give --weights PATH to {HUB_FILE} of the hub's "
                f"{HUB_REPOSITORY}, set {WEIGHTS_VARIABLE}, or use --set scoring.extractor=texture."
            )
        from metrics.extractors.medicalnet import MedicalNetExtractor, load_medicalnet

        _, sha256 = load_medicalnet(path)
    except ValueError as error:
        raise InputError(str(error)) from error
    return ExtractorFacts(
        MedicalNetExtractor.name,
        MedicalNetExtractor.version,
        scoring.preprocess,
        sha256,
        str(path),
    )
