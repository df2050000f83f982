"""Which person of a video is extracted, where a mask shows whose face is forged."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fmsd.cli.main import main
from fmsd.data.extraction.crops import process_video
from fmsd.data.extraction.faces import YuNet
from fmsd.data.extraction.mask_files import assign_masks
from fmsd.data.extraction.masks import Mask
from fmsd.data.extraction.outcomes import outcome_warnings, summarize_record
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.source_videos import SourceVideo, file_state, group_videos
from fmsd.data.sources import ffpp
from fmsd.errors import InputError
from tests.films import film, shot

SIZE = (320, 160)
LARGE, SMALL = (1, 10, 10, 140), (2, 200, 40, 100)
"""Two people, as (seed, left, top, side)."""


def scene(frames: int = 4) -> list[np.ndarray]:
    return [shot(SIZE, [LARGE, SMALL])] * frames


def mask(
    *faces: tuple[int, int, int, int], frames: int = 4, size: tuple[int, int] = SIZE
) -> list[np.ndarray]:
    """White where the faces are."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for _, left, top, side in faces:
        image[top + side // 4 : top + side, left + side // 4 : left + 3 * side // 4] = 255
    return [image] * frames


def copy_of_ffpp(root: Path, masked: Sequence[np.ndarray] | None) -> Path:
    """FaceForensics++ of one pair, in its official tree."""
    fakes = root / "manipulated_sequences/Deepfakes"
    film(root / "original_sequences/youtube/c23/videos/033.mp4", scene())
    film(fakes / "c23/videos/033_097.mp4", scene())
    if masked is not None:
        film(fakes / "masks/videos/033_097.mp4", masked)
    return root


def run(root: Path, out: Path, *more: str) -> int:
    command = ["extract", "data=ff++", f"data.root={root}", f"out={out}", "workers=1", "size=32"]
    return main([*command, "data.source.manipulations=[Deepfakes]", *more])


def record(out: Path, domain: str, video: str) -> dict[str, Any]:
    return json.loads((out / "ff++" / domain / "c23" / video / "video.json").read_text())


def sides(found: dict[str, Any]) -> set[str]:
    """On which side of the frame the crops were taken."""
    boxes = [line["box"] for line in found["frames"] if line["status"] == "face"]
    return {"left" if box[0] + box[2] / 2 < SIZE[0] / 2 else "right" for box in boxes}


def test_the_face_under_the_mask_is_taken_of_the_fake_and_of_its_real_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = copy_of_ffpp(tmp_path / "ff", mask(SMALL)), tmp_path / "crops"
    assert run(root, out) == 0
    fake, real = record(out, "Deepfakes", "033_097"), record(out, "real", "033")
    assert sides(fake) == sides(real) == {"right"}
    assert fake["mask"] == real["mask"]
    assert fake["mask"].pop("share") > 0.9
    assert fake["mask"] == {"of": "ff++/Deepfakes/c23/033_097", "used": True}
    assert json.loads((out / "extract.json").read_text())["mask"] == "auto"
    by_track = tmp_path / "by_track"
    assert run(root, by_track, "mask=null") == 0
    assert sides(record(by_track, "Deepfakes", "033_097")) == {"left"}
    assert "mask" not in json.loads((by_track / "extract.json").read_text())
    assert run(root, by_track) == 2  # the rest would be made by masks
    error = " ".join(capsys.readouterr().err.split())
    assert "were made with mask=None, not auto; choose another out=FOLDER" in error
    assert run(root, out, "mask=null") == 2  # and the other way round
    error = " ".join(capsys.readouterr().err.split())
    assert "were made with mask=auto, not None; choose another out=FOLDER" in error


def extracted(
    folder: Path, find: YuNet, masked: Sequence[np.ndarray] | None, label: int = 1, **keys: Any
) -> dict[str, Any]:
    """The record of a video with a mask."""
    path, video = folder / "mask.mp4", folder / "video.mp4"
    if masked is not None:
        film(path, masked)
    source = SourceVideo("a", film(video, scene()), (), label, "mine", "swap", "test", "")
    found, _ = process_video(
        replace(source, masks=(Mask("mine/swap/a", path),)), find, Recipe(size=32, **keys)
    )
    return found


@pytest.fixture(scope="module")
def find() -> YuNet:
    return YuNet()


def warnings(found: dict[str, Any]) -> str:
    return " ".join(
        outcome_warnings([summarize_record(found | {"video": "a"}, Recipe())], Recipe())
    )


def test_all_faces_of_a_fake_are_those_under_the_mask_and_of_a_real_video_all(
    tmp_path: Path, find: YuNet
) -> None:
    for masked, label, persons in (
        (mask(SMALL), 1, {1: "right"}),
        (mask(SMALL), 0, {1: "right", 2: "left"}),
        (mask(LARGE, SMALL), 1, {1: "left", 2: "right"}),
    ):
        lines = extracted(tmp_path, find, masked, label, faces="all")["frames"]
        assert {line["person"]: sides({"frames": [line]}) for line in lines} == {
            person: {side} for person, side in persons.items()
        }


def test_without_tracks_each_frame_has_the_face_under_its_mask(tmp_path: Path, find: YuNet) -> None:
    masked = [*mask(LARGE, frames=2), *mask(SMALL, frames=2)]
    lines = extracted(tmp_path, find, masked, track=False)["frames"]
    assert [line["box"][0] < 150 for line in lines] == [True, True, False, False]


def test_a_fake_whose_mask_lies_on_no_face_has_no_crop_and_a_real_video_its_track(
    tmp_path: Path, find: YuNet
) -> None:
    beside = mask((0, 150, 0, 30))
    for keys in ({}, {"track": False}):
        fake = extracted(tmp_path, find, beside, **keys)
        assert {line["status"] for line in fake["frames"]} == {"other"}
        assert "No detected face lies under the mask: in 1 of 1 videos" in warnings(fake)
        assert sides(extracted(tmp_path, find, beside, label=0, **keys)) == {"left"}


@pytest.mark.parametrize(
    ("masked", "why"),
    [
        (mask(SMALL, frames=9), "has 9 frames, and its video 4"),
        (mask(SMALL, size=(320, 320)), "has 320 x 320 pixels, and its video 320 x 160"),
        (mask(), "is empty in all frames of its video"),
        (None, "cannot be opened"),
    ],
)
def test_a_mask_that_does_not_fit_is_reported_and_the_track_decides(
    tmp_path: Path, find: YuNet, masked: list[np.ndarray] | None, why: str
) -> None:
    found = extracted(tmp_path, find, masked)
    assert sides(found) == {"left"}
    assert found["mask"]["used"] is False
    assert why in found["mask"]["why"]
    assert "Masks that cannot be used: in 1 of 1 videos" in warnings(found)
    for label, sides_of_all in ((1, {"left"}), (0, {"left", "right"})):
        assert sides(extracted(tmp_path, find, masked, label, faces="all")) == sides_of_all


def test_a_mask_may_be_smaller_and_grey_and_lack_a_tenth_of_the_frames(
    tmp_path: Path, find: YuNet
) -> None:
    half = [image[::2, ::2] // 2 + 10 for image in mask(SMALL)]
    assert sides(extracted(tmp_path, find, half)) == {"right"}
    path, short = (
        film(tmp_path / "long.mp4", scene(20)),
        film(tmp_path / "m.mp4", mask(SMALL, frames=18)),
    )
    source = SourceVideo("a", path, (), 1, "mine", "swap", "test", "", masks=(Mask("a", short),))
    found, crops = process_video(source, find, Recipe(size=32))
    assert len(crops) == 20
    assert sides(found) == {"right"}


def test_a_mask_that_was_repaired_is_taken_up(tmp_path: Path) -> None:
    broken, path = film(tmp_path / "a.mp4", mask()), tmp_path / "b.mp4"
    source = SourceVideo("a", broken, (), 1, "mine", "swap", "test", "", masks=(Mask("a", path),))
    before = file_state(source)
    film(path, mask(SMALL))
    assert before == file_state(replace(source, masks=()))
    assert file_state(source) != before


def test_masks_lie_where_the_user_says(tmp_path: Path) -> None:
    root = copy_of_ffpp(tmp_path / "ff", None)
    path = tmp_path / "masks/Deepfakes/033_097.avi"
    path.parent.mkdir(parents=True)
    path.touch()
    scan = ffpp.scan(root, manipulations=["Deepfakes"])
    listed = group_videos(scan, [])
    for given in ("masks/Deepfakes", "masks/{domain}/{video}", "masks/{domain}/{video}.mp4"):
        found = assign_masks(listed, f"{tmp_path}/{given}")
        assert [source.masks for source in found] == [
            (Mask("ff++/Deepfakes/c23/033_097", path),)
        ] * 2
    for wrong, message in (
        ("masks", "names a mask of none of the fake videos"),
        ("{name}", r"has the unknown fields \['name'\]"),
    ):
        with pytest.raises(InputError, match=message):
            assign_masks(listed, f"{tmp_path}/{wrong}")


def test_frames_as_images_have_masks_as_images_of_the_same_names(tmp_path: Path) -> None:
    root, out = tmp_path / "ff", tmp_path / "crops"
    for domain, name in (("original_sequences/youtube", "033"), ("Deepfakes", "033_097")):
        home = domain if "/" in domain else f"manipulated_sequences/{domain}"
        for index in (3, 8):
            write(root / home / "c23/frames" / name / f"{index:03d}.png", scene()[0])
    write(tmp_path / "masks/033_097/008.png", mask(SMALL)[0])
    assert run(root, out, f"mask={tmp_path / 'masks'}") == 0
    assert sides(record(out, "Deepfakes", "033_097")) == {"right"}


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
