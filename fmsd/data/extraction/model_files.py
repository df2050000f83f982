"""The model files of the face detectors: where they are found, and whether they can be used."""

import hashlib
import importlib.util
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from fmsd.atomic import atomic
from fmsd.cache import cache_folder
from fmsd.data.extraction.pixels import Pixels
from fmsd.data.synthetic.faces import Pose, render
from fmsd.data.synthetic.recording import CONDITIONS, draw_identity
from fmsd.errors import InputError, reason
from fmsd.magic_numbers import recognise_text
from fmsd.paths import expand_home


class ModelFile(NamedTuple):
    """A published model file.

    Args:
        name: of the file.
        sha256: its hash.
        url: where it is downloaded from.
        package: a Python package that contains it, and the file's folder in it.
        kind: the name of the model in messages.
        install: how to get it otherwise, a clause for messages.
    """

    name: str
    sha256: str
    url: str
    package: tuple[str, str] | None
    kind: str
    install: str


def locate_model(model: ModelFile, weights: str | None) -> tuple[Path, str]:
    """The file of a model, and its hash.

    Args:
        weights: a file that the user gave; None for `find_model`.

    Raises:
        InputError: it cannot be read, or is a text such as a Git LFS pointer.
    """
    path = find_model(model) if weights is None else expand_home(weights)
    remedy = "correct detector.weights=PATH"
    try:
        if fault := recognise_text(path):
            raise InputError(f"{path} {fault.what}, and no {model.kind} model", fault.remedy)
        return path, hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"{path} is not a {model.kind} model ({error.strerror})", remedy
        ) from error


def find_model(model: ModelFile) -> Path:
    """The published file of a model, checked by its hash.

    It comes from its package, else from the cache, else it is downloaded into the cache.

    Raises:
        InputError: the model can neither be found nor downloaded.
    """
    name, folder = model.package or ("", "")
    package = importlib.util.find_spec(name) if name else None
    places = (package.submodule_search_locations or ()) if package else ()
    cache = cache_folder() / model.name
    for path in (*(Path(place) / folder / model.name for place in places), cache):
        if os.path.isfile(path) and hashlib.sha256(path.read_bytes()).hexdigest() == model.sha256:
            return path
    try:
        with urllib.request.urlopen(model.url, timeout=30) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != model.sha256:
            raise OSError("the download does not have the expected hash")
    except OSError as error:
        raise InputError(
            f"The face detector's model {model.name} cannot be fetched ({reason(error)})",
            f"{model.install} and give detector.weights=PATH",
        ) from error
    try:
        with atomic(cache) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"The face detector's model cannot be saved in {cache.parent} "
            f"({error.strerror or reason(error)})",
            f"set FMSD_CACHE to a folder that can be written, or {model.install}",
        ) from error
    return cache


def draw_test_picture() -> Pixels:
    """A drawn face of 160 pixels, which every detector of faces that works detects."""
    who = draw_identity(np.random.default_rng(1), CONDITIONS["synthetic"])
    image = render(who, Pose(0, 0, 0, 0, 0.5, 0.2, 0, 0, 0), 1, 0.0).image
    return cv2.resize(
        (np.clip(image, 0, 1) * 255).astype(np.uint8), (160, 160), interpolation=cv2.INTER_CUBIC
    )


def check_detection(detect: Callable[[Pixels], list[Any]], path: Path) -> None:
    """Checks that a detector finds the face of a drawn picture.

    Args:
        detect: the faces of an RGB image, of a confidence that the test picture's reaches.
        path: the model file, for the message.

    Raises:
        InputError: it finds no face, as with a damaged or foreign model, or fails.
    """
    try:
        found = bool(detect(draw_test_picture()))
    except Exception as error:
        raise InputError(
            f"The face detector of {path} fails ({reason(error)})", "correct detector.weights=PATH"
        ) from error
    if not found:
        raise InputError(
            f"The face detector of {path} detects no face in its test picture",
            "correct detector.weights=PATH",
        )
