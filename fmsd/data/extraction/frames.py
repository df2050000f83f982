"""The frames of one video: their faces, the persons these belong to, and the crops."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy import ndarray

from fmsd.data.extraction.alignment import crop_face, crop_landmarks, crop_matrix
from fmsd.data.extraction.faces import Face, FaceDetector
from fmsd.data.extraction.masks import (
    MASKED,
    DetectedFrame,
    Mask,
    measure_masks,
    track_shares,
)
from fmsd.data.extraction.recipe import Crop, Recipe
from fmsd.data.extraction.tracking import track_faces
from fmsd.data.extraction.video import Sample, map_frames
from fmsd.data.loading.blending import LANDMARKS_SUFFIX
from fmsd.data.loading.image import read_image
from fmsd.data.manifest import frame_positions
from fmsd.errors import InputError


class FrameFaces(NamedTuple):
    """The faces of a frame; the frame itself is too large to be kept.

    Args:
        sample: the frame without its image.
        size: width and height of its image in pixels; None where it cannot be decoded.
        detected: number of detected faces.
        faces: the faces that may be kept, the largest first, and `crops` of them.
    """

    sample: Sample
    size: tuple[int, int] | None
    detected: int
    faces: list[Face]
    crops: list[Crop]


def process_frames(
    file: Path | None,
    images: Sequence[tuple[int, Path]],
    detect: FaceDetector,
    recipe: Recipe,
    masks: Sequence[Mask] = (),
    fake: bool = True,
) -> tuple[dict[str, Any], dict[str, ndarray]]:
    """Detects and crops the faces of a video.

    Returns keys of its record, `picture`, `frames` and, with masks, `mask`; and by file name the
    crops, and their landmarks from detectors that have dense ones.
    `picture` describes how the frames are shown. `frames` has a line for each frame, or for each
    person in it, with a status: `face` (cropped), `none` (no face), `other` (only faces of other
    persons), `small` (left out for its size), `corrupt` (decoded with damage, and left out) or
    `damaged` (cannot be decoded).

    Args:
        file: the video file; None where there are only images.
        images: (position in the video, image file), where there is no video file.
        masks: show which face is forged; of a real video, which face a fake of it forges.
        fake: whether the video is fake.

    Raises:
        InputError: the video cannot be opened, ends too early, or none of its frames can be
            decoded.
    """

    def detect_and_crop(sample: Sample) -> FrameFaces:
        bare = sample._replace(image=None)
        if sample.image is None:
            return FrameFaces(bare, None, 0, [], [])
        faces = detect(sample.image)
        kept = faces if recipe.track or masks else faces[:1]
        crops = [
            crop_face(sample.image, face, recipe.size, recipe.margin, recipe.align) for face in kept
        ]
        height, width, _ = sample.image.shape
        return FrameFaces(bare, (width, height), len(faces), kept, crops)

    frames = map_source_frames(file, images, recipe, detect_and_crop)
    if not any(frame.size or frame.sample.corrupt for frame in frames):
        raise InputError(
            f"None of the frames of {file or images[0][1].parent} can be decoded",
            "copy it again from its source",
        )
    seen = [
        DetectedFrame(frame.sample.position, frame.size, frame.faces)
        for frame in frames
        if frame.size
    ]
    under = measure_masks(masks, seen, file, images)
    # with the mask of a fake unusable, nothing tells which of its faces are forged
    alone = fake and bool(masks) and under.by_frame is None
    persons = faces_by_person(frames, recipe, under.by_frame, fake, alone)
    lines = []
    files: dict[str, ndarray] = {}
    for frame, faces in zip(frames, persons, strict=True):
        shown = [(person, face) for person, face in enumerate(faces, 1) if face]
        for line, written in frame_lines(frame, shown, recipe):
            lines.append(line)
            files |= written
    record: dict[str, Any] = {"picture": picture_record(frames), "frames": lines}
    if masks:
        record["mask"] = under.record
    if under.by_frame is not None:
        shares = [
            share
            for frame, faces in zip(frames, persons, strict=True)
            if faces and faces[0]
            if (share := mask_share(frame, faces[0], under.by_frame)) is not None
        ]
        record["mask"] |= {"share": round(sum(shares) / max(len(shares), 1), 3)}
    return record, files


def map_source_frames(
    file: Path | None,
    images: Sequence[tuple[int, Path]],
    recipe: Recipe,
    function: Callable[[Sample], FrameFaces],
) -> list[FrameFaces]:
    """Applies a function to the frames of a video, or of its images, that a recipe samples.

    Raises:
        InputError: the video file cannot be opened, or is cut off.
    """
    if file is None:
        taken = frame_positions(len(images), recipe.frames, recipe.sampling)
        return [function(image_sample(*images[place])) for place in taken]
    return map_frames(
        file, recipe.frames, recipe.sampling, function, whole=True, keep_corrupt=recipe.keep_corrupt
    )


def image_sample(position: int, path: Path) -> Sample:
    """An image file as a frame of a video; without pixels where it cannot be decoded."""
    try:
        return Sample(position, 0.0, read_image(path))
    except InputError:
        return Sample(position, 0.0, None)


def faces_by_person(
    frames: Sequence[FrameFaces],
    recipe: Recipe,
    masked: Mapping[int, Sequence[float]] | None,
    fake: bool,
    alone: bool,
) -> list[list[Face | None]]:
    """The face of each person in each frame, in one order of persons; None where one is not seen.

    With a mask the person under it is the first, and of a fake no other is taken, who is real. A
    real video in which nobody is under the mask is treated as without one.

    Args:
        masked: the shares of the mask, see `fmsd.data.extraction.masks.MaskShares`.
        fake: whether the video is fake.
        alone: take one person, whatever the recipe says.
    """
    if not recipe.track:
        return [[face_of_frame(frame, masked, fake)] for frame in frames]
    tracks = track_faces([frame.faces for frame in frames])
    if masked is not None:
        totals = track_shares(tracks, lambda number, face: mask_share(frames[number], face, masked))
        order = sorted(range(len(tracks)), key=lambda track: -totals[track][0])
        under = [track for track in order if totals[track][1] >= MASKED]
        others = [] if fake else [track for track in range(len(tracks)) if track not in under]
        tracks = [tracks[track] for track in under + others]
    tracks = tracks if recipe.faces == "all" and not alone else tracks[:1]
    return [[track.get(number) for track in tracks] for number in range(len(frames))]


def face_of_frame(
    frame: FrameFaces, masked: Mapping[int, Sequence[float]] | None, fake: bool
) -> Face | None:
    """The face under a frame's mask, else None if it is fake; without a mask the largest face."""
    shares = (masked or {}).get(frame.sample.position)
    if not shares:
        return frame.faces[0] if frame.faces else None
    best = max(range(len(shares)), key=lambda place: shares[place])
    if shares[best] >= MASKED:
        return frame.faces[best]
    return None if fake else frame.faces[0]


def mask_share(
    frame: FrameFaces, face: Face, masked: Mapping[int, Sequence[float]] | None
) -> float | None:
    """The share of a frame's mask inside the box of one of its faces; None if it has no mask."""
    shares = (masked or {}).get(frame.sample.position)
    if shares is None:
        return None
    return next(share for one, share in zip(frame.faces, shares, strict=True) if one is face)


def frame_lines(
    frame: FrameFaces, shown: Sequence[tuple[int, Face]], recipe: Recipe
) -> Iterator[tuple[dict[str, Any], dict[str, ndarray]]]:
    """The lines of a frame in the record, each with its crop and landmarks by file name.

    Args:
        shown: (number of a person, face) of the persons in the frame whom the recipe keeps.
    """
    line: dict[str, Any] = {
        "index": frame.sample.position,
        "seconds": round(frame.sample.seconds, 4),
        "faces": frame.detected,
    }
    if frame.size is None:
        yield line | {"status": "corrupt" if frame.sample.corrupt else "damaged"}, {}
        return
    if frame.sample.corrupt:
        line["corrupt"] = True
    if not shown:
        yield line | {"status": "other" if frame.detected else "none"}, {}
    for person, face in shown:
        side = stored_side(face, frame.sample)
        about = line | ({"person": person} if recipe.faces == "all" else {})
        where: dict[str, Any] = {"box": [round(x, 2) for x in face.box], "side": round(side, 1)}
        where |= {
            "points": face.points.round(2).tolist(),
            "score": face.score and round(face.score, 4),
        }
        if side < recipe.min_face and not recipe.keep_small:
            yield about | {"status": "small"} | where, {}
            continue
        suffix = f"_{person}" if person > 1 else ""
        stem = f"{frame.sample.position:06d}{suffix}"
        name = f"{stem}.{recipe.format}"
        crops = zip(frame.faces, frame.crops, strict=True)
        files = {name: next(crop for candidate, crop in crops if candidate is face)}
        if face.landmarks is not None:
            matrix = crop_matrix(face, recipe.size, recipe.margin, recipe.align)
            files[stem + LANDMARKS_SUFFIX] = crop_landmarks(face.landmarks, matrix)
        yield about | {"status": "face", "file": name} | where, files


def stored_side(face: Face, sample: Sample) -> float:
    """The shorter side of a face's box in stored pixels, before oblong ones were made square."""
    across, down = sample.picture.grown if sample.picture else (1.0, 1.0)
    return float(min(face.box[2] / across, face.box[3] / down))


def picture_record(frames: Sequence[FrameFaces]) -> dict[str, Any]:
    """How a video is shown, by its first decoded frame; interlaced if any frame is."""
    size = next((frame.size for frame in frames if frame.size), None)
    pictures = [frame.sample.picture for frame in frames if frame.sample.picture]
    record: dict[str, Any] = {} if size is None else {"width": size[0], "height": size[1]}
    if pictures:
        aspect = pictures[0].aspect
        record |= {
            "pixel_aspect": f"{aspect.numerator}:{aspect.denominator}",
            "tone_mapped": pictures[0].hdr,
            "interlaced": any(picture.interlaced for picture in pictures),
        }
    return record
