"""Self-blended images: fakes for training, made of real frames alone.

Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022, arXiv 2204.08376.
A frame is blended with an altered copy of itself inside a mask of its face, so that it has only
those traces that forgeries have in common: a boundary, and two statistics in one image.

Steps and most parameters are those of the paper and its code. Differences: the field that deforms
the mask is coarser; hue, saturation and value change visibly, where that code has 0.3 of a grey
level; a copy is made coarser by a factor of 1.5 to 3 without aliasing, not by 2 or 4 with it, which
frames of any origin would show; the mask is the hull of the face, with or without forehead, never
of parts of it. Lengths in pixels are for a frame of 256 pixels and scale with the frame.
"""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import polars as pl
from jaxtyping import Float, UInt8
from numpy import ndarray
from numpy.random import Generator

from fmsd.data.manifest import Manifest
from fmsd.data.prepared_folder import crop_settings
from fmsd.errors import InputError, reason

log = logging.getLogger(__name__)

Pixels = UInt8[ndarray, "height width 3"]
BlendMask = Float[ndarray, "height width"]
Points = Float[ndarray, "_ 2"]

SBI = "sbi"
"""The domain of self-blended images, and the name of their augmentation."""

BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
"""Opacities of the altered copy where the mask is 1; one is drawn per blend."""


def add_self_blended(manifest: Manifest) -> Manifest:
    """Adds each real training frame as a fake of the domain `sbi`, in place of all training fakes.

    The pair of a fake is the video of its frame.

    Raises:
        InputError: there are crops without landmarks that a mean face does not fit, or the first
            landmarks are not those of DeepfakeBench.
    """
    training, real = pl.col("split") == "train", pl.col("label") == 0
    frames = manifest.table.filter(training & real)
    columns = {
        "label": pl.lit(1, pl.Int8),
        "domain": pl.lit(SBI),
        "video": pl.concat_str(pl.lit(f"{SBI}/"), "video"),
        "pair": pl.col("video"),
    }
    blends = frames.with_columns(**columns)
    table = pl.concat([manifest.table.filter(~training | real), blends])
    dropped = manifest.table.filter(training & ~real).height
    files = replace(manifest, table=frames).files()
    places = [place for place in map(landmark_file, files) if place.is_file()]
    marked = len(places)
    if places:
        read_landmarks(places[0])  # refused before the first step rather than in it
    crops = crop_settings(manifest.root) or MEAN_FACE_CROPS
    if marked < len(files) and (
        wrong := [
            f"{name}={json.dumps(crops[name])}"
            for name, fits in MEAN_FACE_CROPS.items()
            if crops[name] != fits
        ]
    ):
        raise InputError(
            f"The crops in {manifest.root} were made with {', '.join(wrong)}, where the mean face "
            "of data.augment=sbi does not fit",
            "make them with fmsd extract align=true margin=1.3 out=FOLDER, or choose another "
            "augmentation",
        )
    log.info(
        "Self-blended images: each of the %d real training frames is also blended into a fake; %d "
        "fakes of the training split are left out. "
        "The face is masked by its landmarks in %d frames, by the outline of a mean face in %d, "
        "which must be aligned crops (fmsd pack does not copy landmarks).",
        len(files),
        dropped,
        marked,
        len(files) - marked,
    )
    return replace(manifest, table=table)


_TEMPLES = [(0.225, 0.45), (0.24, 0.60), (0.275, 0.74), (0.34, 0.85), (0.42, 0.91), (0.50, 0.925)]
_BROW = [(0.24, 0.40), (0.33, 0.37), (0.42, 0.37)]
_FOREHEAD = [(0.25, 0.36), (0.32, 0.30), (0.41, 0.265), (0.50, 0.255)]


def _symmetric(half: Sequence[tuple[float, float]]) -> Points:
    return np.array([*half, *((1 - x, y) for x, y in half)])


MEAN_FACE = (_symmetric(_TEMPLES + _BROW + _FOREHEAD), _symmetric(_TEMPLES + _BROW))
"""The outline of a mean face with and without its forehead, as (x, y) from 0 to 1.

It fits a crop that is aligned to ArcFace's five points with a margin of 1.3: eyes at (0.38, 0.47)
and (0.62, 0.47), corners of the mouth at (0.40, 0.75) and (0.60, 0.75).
"""

MEAN_FACE_CROPS = {"align": True, "margin": 1.3}
"""Settings of `fmsd extract` for crops that the mean face fits."""

LANDMARKS, WITHOUT_FOREHEAD = 81, 68
"""Number of points in a file of landmarks, and of those that do not lie on the forehead."""


FETCH_LANDMARKS = "fetch it again, or remove the folder of landmarks to use a mean face"


LANDMARKS_SUFFIX = ".landmarks.npy"
"""Ending of the landmarks that `fmsd extract detector=mediapipe` writes beside a crop."""

# fmt: off
MESH = 478
"""Number of points of MediaPipe's mesh."""

BELOW_FOREHEAD = [
    127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288,
    361, 323, 454, 356, 70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
]
"""Points of the mesh along the jaw, from temple to temple, and on the brows."""
# fmt: on


def landmark_file(image: str | Path) -> Path:
    """The file of a frame's landmarks, which may be missing.

    In DeepfakeBench's layout it is `landmarks/VIDEO/FRAME.npy` for `frames/VIDEO/FRAME.png`, below
    other folders `FRAME.landmarks.npy` beside the image.
    """
    path = Path(image)
    home = path.parents[1] if len(path.parents) > 1 else path
    return (
        home.with_name("landmarks") / path.parent.name / f"{path.stem}.npy"
        if home.name == "frames"
        else path.with_name(path.stem + LANDMARKS_SUFFIX)
    )


def face_outlines(image: str | Path, height: int, width: int) -> Sequence[Points]:
    """Points in pixels whose hull is the face in a frame, with and without its forehead.

    They are the frame's landmarks where it has some, else those of a mean face.

    Raises:
        InputError: the landmarks are damaged, or not those of the frame.
    """
    path = landmark_file(image)
    if not path.is_file():
        return [points * (width, height) for points in MEAN_FACE]
    points = read_landmarks(path)
    if (
        not np.isfinite(points).all()
        or hull_mask(np.clip(points, -width - height, width + height), height, width).mean() < 0.01
    ):
        raise InputError(
            f"The landmarks {path} mark no face inside its frame of {width} x {height} pixels",
            FETCH_LANDMARKS,
        )
    below = BELOW_FOREHEAD if len(points) == MESH else slice(WITHOUT_FOREHEAD)
    return [points, points[below]]


def read_landmarks(path: Path) -> Points:
    """The points of a file of landmarks, in pixels.

    Raises:
        InputError: the file cannot be read, or holds anything else than 81 points, those of the
            forehead last, or the 478 of MediaPipe.
    """
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"The landmarks {path} cannot be read ({reason(error)})", FETCH_LANDMARKS
        ) from error
    if not isinstance(points, ndarray) or points.dtype.kind not in "iuf":
        raise InputError(f"The landmarks {path} are no table of numbers", FETCH_LANDMARKS)
    if points.shape not in ((LANDMARKS, 2), (MESH, 2)):
        found = (
            f"{len(points)} points"
            if points.ndim == 2 and points.shape[1] == 2
            else f"a table of {' x '.join(map(str, points.shape))} numbers"
        )
        raise InputError(
            f"The landmarks {path} are {found}, where {LANDMARKS} points are wanted, "
            f"{LANDMARKS - WITHOUT_FOREHEAD} of them on the forehead, or MediaPipe's {MESH}",
            "make them with dlib's predictor of 81 landmarks, as DeepfakeBench does, or remove the "
            "folder of landmarks to use a mean face",
        )
    return points.astype(np.float64)


def hull_mask(points: Points, height: int, width: int) -> BlendMask:
    """A mask that is 1 inside the convex hull of the points, 0 outside."""
    return cv2.fillConvexPoly(
        np.zeros((height, width), np.float32), cv2.convexHull(points.round().astype(np.int32)), 1.0
    )


def self_blend(image: Pixels, faces: Sequence[Points], rng: Generator) -> Pixels:
    """Blends a frame with an altered copy of itself inside the face; either may be the target.

    Args:
        faces: outlines of the face, of which one is drawn.
    """
    height, width = image.shape[:2]
    source, target = (
        (alter(image, rng), image) if rng.random() < 0.5 else (image, alter(image, rng))
    )
    face = hull_mask(faces[int(rng.integers(len(faces)))], height, width)
    shift = draw_shift(height, width, rng)
    source = cv2.warpAffine(source, shift, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    moved = deform_mask(cv2.warpAffine(face, shift, (width, height)), rng)
    # a face at the edge may have left the frame
    mask = soften_mask(moved if moved.any() else face, rng)
    return alpha_blend(source, target, mask * rng.choice(BLEND_RATIOS))


def alpha_blend(source: Pixels, target: Pixels, mask: BlendMask) -> Pixels:
    """The source where the mask is 1, the target where it is 0."""
    share = mask[..., None].astype(np.float32)
    return (share * source + (1 - share) * target).round().astype(np.uint8)


def alter(image: Pixels, rng: Generator) -> Pixels:
    """A copy with other colours that is either coarser or sharper."""
    pixels = image.astype(np.float32)
    if rng.random() < 0.3:
        pixels += rng.uniform(-20, 20, 3).astype(np.float32)
    hue, saturation, value = cv2.split(
        cv2.cvtColor(pixels.clip(0, 255) / np.float32(255), cv2.COLOR_RGB2HSV)
    )
    hue += 360 + rng.uniform(-10, 10)  # OpenCV takes angles beyond a full turn, but none below zero
    saturation, value = saturation + rng.uniform(-0.08, 0.08), value + rng.uniform(-0.06, 0.06)
    pixels = (
        cv2.cvtColor(
            cv2.merge([hue, saturation.clip(0, 1), value.clip(0, 1)]).astype(np.float32),
            cv2.COLOR_HSV2RGB,
        )
        * 255
    )
    pixels = pixels * (1 + rng.uniform(-0.1, 0.1)) + 255 * rng.uniform(-0.1, 0.1)
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        factor = rng.uniform(1.5, 3)
        small = cv2.resize(
            pixels,
            (math.ceil(width / factor), math.ceil(height / factor)),
            interpolation=cv2.INTER_AREA,
        )
        pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        pixels += rng.uniform(0.5, 1.5) * (pixels - cv2.GaussianBlur(pixels, (0, 0), 1.0))
    return pixels.clip(0, 255).round().astype(np.uint8)


def draw_shift(height: int, width: int, rng: Generator) -> Float[ndarray, "2 3"]:
    """Draws a shift by up to 3 % of the width, 1.5 % of the height, and a scaling by up to 5 %."""
    scale = rng.uniform(0.95, 1 / 0.95)
    centre = np.array([width, height]) / 2
    move = rng.uniform(-1, 1, 2) * (0.03 * width, 0.015 * height)
    return np.column_stack([scale * np.eye(2), (1 - scale) * centre + move])


def deform_mask(
    mask: BlendMask, rng: Generator, cells: int = 8, strength: float = 4.0
) -> BlendMask:
    """Deforms a mask by a smooth random field.

    Args:
        cells: number of cells of the field's coarse grid along each side.
        strength: standard deviation of the displacement, in pixels of a frame of 256.
    """
    height, width = mask.shape
    pull = rng.normal(0, strength * min(height, width) / 256, (cells, cells, 2)).astype(np.float32)
    across, down = cv2.split(cv2.resize(pull, (width, height), interpolation=cv2.INTER_CUBIC))
    columns, rows = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    return cv2.remap(mask, columns + across, rows + down, cv2.INTER_LINEAR)


def soften_mask(mask: BlendMask, rng: Generator) -> BlendMask:
    """Shrinks a mask a little and blurs its edge; its largest value is 1."""
    unit = min(mask.shape) / 256
    side = 1 + 2 * round(rng.uniform(1, 6) * unit)
    smaller = cv2.erode(
        mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), borderValue=0
    )
    kept = smaller if smaller.any() else mask
    soft = cv2.GaussianBlur(kept, (0, 0), rng.uniform(1, 8) * unit)
    return soft / soft.max()
