"""Looking at the frames of a video: which faces they show, whose they are, and their crops."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fmsd.data.extraction.faces import Face, Finder, crop, tracks
from fmsd.data.extraction.recipe import Crop, Recipe
from fmsd.data.extraction.video import Sample, each
from fmsd.data.loading.image import read_image
from fmsd.data.manifest import frame_positions
from fmsd.errors import InputError


class Look(NamedTuple):
    """What was seen in a frame, which is too large to be kept itself.

    Args:
        sample: the frame without its image.
        size: width and height of its image in pixels; None where there is none.
        found: number of faces.
        faces: those that may be kept, the largest first, and `crops` of them.
    """

    sample: Sample
    size: tuple[int, int] | None
    found: int
    faces: list[Face]
    crops: list[Crop]


def look(
    file: Path | None, images: Sequence[tuple[int, Path]], find: Finder, recipe: Recipe
) -> tuple[dict[str, Any], dict[str, Crop]]:
    """What the frames of a video show, as two keys of its record, and the crops by file name.

    `picture` tells how the frames are shown. `frames` has a line for each frame, or for each person
    in it, with a status: `face` (a crop was made), `none` (no face), `other` (none of the person of
    the video), `small` (left out for its size), `corrupt` (decoded with damage, and left out) or
    `damaged` (cannot be decoded).

    Args:
        file: the video file; None where there are only images.
        images: (position in the video, image file), where there is no video file.

    Raises:
        InputError: the video cannot be opened, ends too early, or none of its frames can be
            decoded.
    """

    def see(sample: Sample) -> Look:
        bare = sample._replace(image=None)
        if sample.image is None:
            return Look(bare, None, 0, [], [])
        found = find(sample.image)
        kept = found if recipe.track else found[:1]
        crops = [
            crop(sample.image, face, recipe.size, recipe.margin, recipe.align) for face in kept
        ]
        height, width, _ = sample.image.shape
        return Look(bare, (width, height), len(found), kept, crops)

    looks = seen(file, images, recipe, see)
    if not any(one.size or one.sample.corrupt for one in looks):
        raise InputError(
            f"None of the frames of {file or images[0][1].parent} can be decoded",
            "copy it again from its source",
        )
    people = persons([one.faces for one in looks], recipe)
    lines, crops = [], dict[str, Crop]()
    for number, one in enumerate(looks):
        for line, cut in described(
            one, [(person, face) for person, face in enumerate(people[number], 1) if face], recipe
        ):
            lines.append(line)
            if cut is not None:
                crops[line["file"]] = cut
    return {"picture": picture(looks), "frames": lines}, crops


def seen(
    file: Path | None,
    images: Sequence[tuple[int, Path]],
    recipe: Recipe,
    see: Callable[[Sample], Look],
) -> list[Look]:
    """What is seen in the frames of a video that a recipe takes.

    Raises:
        InputError: the video file cannot be opened, or is cut off.
    """
    if file is None:
        taken = frame_positions(len(images), recipe.frames, recipe.sampling)
        return [see(image(*images[place])) for place in taken]
    return each(
        file, recipe.frames, recipe.sampling, see, whole=True, keep_corrupt=recipe.keep_corrupt
    )


def image(position: int, path: Path) -> Sample:
    """An image file as a frame of a video."""
    try:
        return Sample(position, 0.0, read_image(path))
    except InputError:
        return Sample(position, 0.0, None)


def persons(frames: Sequence[Sequence[Face]], recipe: Recipe) -> list[list[Face | None]]:
    """For each frame the face of each person that a recipe takes, who has the same place in all; None where somebody is not seen."""
    if not recipe.track:
        return [[faces[0] if faces else None] for faces in frames]
    taken = tracks(frames)
    taken = taken if recipe.faces == "all" else taken[:1]
    return [[track.get(number) for track in taken] for number in range(len(frames))]


def described(
    one: Look, shown: Sequence[tuple[int, Face]], recipe: Recipe
) -> Iterator[tuple[dict[str, Any], Crop | None]]:
    """The lines of a frame in the record, each with its crop, if one is taken.

    Args:
        shown: (number of a person, face) of those in the frame whom the recipe takes.
    """
    about: dict[str, Any] = {
        "index": one.sample.position,
        "seconds": round(one.sample.seconds, 4),
        "faces": one.found,
    }
    if one.size is None:
        yield about | {"status": "corrupt" if one.sample.corrupt else "damaged"}, None
        return
    if one.sample.corrupt:
        about["corrupt"] = True
    if not shown:
        yield about | {"status": "other" if one.found else "none"}, None
    for person, face in shown:
        side = smallest_side(face, one.sample)
        line = about | ({"person": person} if recipe.faces == "all" else {})
        where: dict[str, Any] = {"box": [round(x, 2) for x in face.box], "side": round(side, 1)}
        where |= {"points": face.points.round(2).tolist(), "score": round(face.score, 4)}
        if side < recipe.min_face and not recipe.keep_small:
            yield line | {"status": "small"} | where, None
            continue
        name = f"{one.sample.position:06d}{f'_{person}' if person > 1 else ''}.{recipe.format}"
        cut = next(cut for found, cut in zip(one.faces, one.crops, strict=True) if found is face)
        yield line | {"status": "face", "file": name} | where, cut


def smallest_side(face: Face, sample: Sample) -> float:
    """Of a face's box, in pixels that the file really holds: oblong ones were enlarged to squares."""
    across, down = sample.picture.grown if sample.picture else (1.0, 1.0)
    return float(min(face.box[2] / across, face.box[3] / down))


def picture(looks: Sequence[Look]) -> dict[str, Any]:
    """How the frames of a video are shown: by the first that is, but for `interlaced`, which one of them suffices for."""
    size = next((one.size for one in looks if one.size), None)
    shown = [one.sample.picture for one in looks if one.sample.picture]
    about: dict[str, Any] = {} if size is None else {"width": size[0], "height": size[1]}
    if shown:
        aspect = f"{shown[0].aspect.numerator}:{shown[0].aspect.denominator}"
        about |= {
            "pixel_aspect": aspect,
            "tone_mapped": shown[0].hdr,
            "interlaced": any(one.interlaced for one in shown),
        }
    return about
