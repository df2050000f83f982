"""The frames of one video: their faces, the persons these belong to, and the crops."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fmsd.data.extraction.alignment import crop_face
from fmsd.data.extraction.faces import Face, FaceDetector
from fmsd.data.extraction.recipe import Crop, Recipe
from fmsd.data.extraction.tracking import track_faces
from fmsd.data.extraction.video import Sample, map_frames
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
    file: Path | None, images: Sequence[tuple[int, Path]], detect: FaceDetector, recipe: Recipe
) -> tuple[dict[str, Any], dict[str, Crop]]:
    """Detects and crops the faces of a video.

    Returns two keys of its record, `picture` and `frames`, and the crops by file name.
    `picture` describes how the frames are shown. `frames` has a line for each frame, or for each
    person in it, with a status: `face` (cropped), `none` (no face), `other` (only faces of other
    persons), `small` (left out for its size), `corrupt` (decoded with damage, and left out) or
    `damaged` (cannot be decoded).

    Args:
        file: the video file; None where there are only images.
        images: (position in the video, image file), where there is no video file.

    Raises:
        InputError: the video cannot be opened, ends too early, or none of its frames can be
            decoded.
    """

    def detect_and_crop(sample: Sample) -> FrameFaces:
        bare = sample._replace(image=None)
        if sample.image is None:
            return FrameFaces(bare, None, 0, [], [])
        faces = detect(sample.image)
        kept = faces if recipe.track else faces[:1]
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
    persons = faces_by_person([frame.faces for frame in frames], recipe)
    lines = []
    crops: dict[str, Crop] = {}
    for frame, faces in zip(frames, persons, strict=True):
        shown = [(person, face) for person, face in enumerate(faces, 1) if face]
        for line, crop in frame_lines(frame, shown, recipe):
            lines.append(line)
            if crop is not None:
                crops[line["file"]] = crop
    return {"picture": picture_record(frames), "frames": lines}, crops


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


def faces_by_person(frames: Sequence[Sequence[Face]], recipe: Recipe) -> list[list[Face | None]]:
    """The face of each person in each frame, in one order of persons; None where one is not seen.

    Args:
        frames: the faces of each frame, the largest first.
    """
    if not recipe.track:
        return [[faces[0] if faces else None] for faces in frames]
    tracks = track_faces(frames)
    tracks = tracks if recipe.faces == "all" else tracks[:1]
    return [[track.get(number) for track in tracks] for number in range(len(frames))]


def frame_lines(
    frame: FrameFaces, shown: Sequence[tuple[int, Face]], recipe: Recipe
) -> Iterator[tuple[dict[str, Any], Crop | None]]:
    """The lines of a frame in the record, each with its crop; None where none is kept.

    Args:
        shown: (number of a person, face) of the persons in the frame whom the recipe keeps.
    """
    line: dict[str, Any] = {
        "index": frame.sample.position,
        "seconds": round(frame.sample.seconds, 4),
        "faces": frame.detected,
    }
    if frame.size is None:
        yield line | {"status": "corrupt" if frame.sample.corrupt else "damaged"}, None
        return
    if frame.sample.corrupt:
        line["corrupt"] = True
    if not shown:
        yield line | {"status": "other" if frame.detected else "none"}, None
    for person, face in shown:
        side = stored_side(face, frame.sample)
        about = line | ({"person": person} if recipe.faces == "all" else {})
        where: dict[str, Any] = {"box": [round(x, 2) for x in face.box], "side": round(side, 1)}
        where |= {"points": face.points.round(2).tolist(), "score": round(face.score, 4)}
        if side < recipe.min_face and not recipe.keep_small:
            yield about | {"status": "small"} | where, None
            continue
        suffix = f"_{person}" if person > 1 else ""
        name = f"{frame.sample.position:06d}{suffix}.{recipe.format}"
        crops = zip(frame.faces, frame.crops, strict=True)
        crop = next(crop for candidate, crop in crops if candidate is face)
        yield about | {"status": "face", "file": name} | where, crop


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
