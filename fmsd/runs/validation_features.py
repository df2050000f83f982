"""Features of validation frames, which tell a prediction what faces the detector was chosen by.

They are the input of the head, as unit vectors, of the weights that the run chose. A run without
the file can do everything but tell whether a face is unusual.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fmsd.atomic import atomic
from fmsd.errors import InputError, reason

FEATURES = "validation_features.safetensors"

BANK = 1024
"""Largest number of validation frames whose features are kept."""


class ValidationFeatures(NamedTuple):
    """The features of some validation frames.

    Args:
        vectors: unit vectors.
        row: number of each frame's row in `validation.parquet`.
        video: number of each frame's video.
    """

    vectors: Float[ndarray, "frames channels"]
    row: Int[ndarray, " frames"]
    video: Int[ndarray, " frames"]


def choose_rows(count: int, seed: int = 0) -> Int[ndarray, " frames"]:
    """The rows of a table whose features are kept, in rising order: all, or `BANK` random ones."""
    if count <= BANK:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, BANK, replace=False))


def unit(features: Float[ndarray, "frames channels"]) -> Float[ndarray, "frames channels"]:
    """The features as unit vectors in float32; zero vectors stay zero."""
    values = features.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def write_features(path: Path, features: ValidationFeatures) -> None:
    """Writes features atomically, in float16."""
    vectors = features.vectors.astype(np.float16)
    tensors = {"vectors": vectors, "row": features.row, "video": features.video}
    with atomic(path) as partial:
        save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, partial)


def read_features(path: Path) -> ValidationFeatures:
    """Reads features as `write_features` writes them.

    Raises:
        InputError: the file is damaged.
    """
    remedy = "put it back, or remove it to predict without telling what is unusual"
    try:
        tensors = load_file(path)
        found = ValidationFeatures(*(tensors[name] for name in ValidationFeatures._fields))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({reason(error)})", remedy) from error
    fits = (
        found.vectors.ndim == 2
        and found.vectors.dtype == np.float16
        and all(
            numbers.shape == found.vectors.shape[:1] and numbers.dtype == np.int64
            for numbers in (found.row, found.video)
        )
        and np.isfinite(found.vectors).all()
    )
    if not fits:
        raise InputError(f"{path} is damaged: it does not hold the features of frames", remedy)
    return found
