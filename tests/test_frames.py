"""What the frames of a video show, as its record says it and as it is reported."""

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fmsd.data.audit.inspect_file import Job
from fmsd.data.audit.inspect_file import inspect as examine
from fmsd.data.extraction.crops import process_video
from fmsd.data.extraction.faces import YuNet
from fmsd.data.extraction.outcomes import outcome_warnings, summarize_record
from fmsd.data.extraction.output import write_settings
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.source_videos import SourceVideo
from fmsd.data.manifest import read_manifest
from fmsd.data.selection import Selection
from fmsd.data.sources import folder
from fmsd.errors import InputError
from fmsd.tasks.extract import extract
from tests.films import bitten, film, shot, walk

EMPTY = np.full((128, 192, 3), 120, np.uint8)


@pytest.fixture(scope="module")
def find() -> YuNet:
    return YuNet()


def record(file: Path, find: YuNet, recipe: Recipe) -> dict[str, Any]:
    """The record of a video file, checked against its crops."""
    found, crops = process_video(
        SourceVideo(file.stem, file, (), 1, "mine", "swap", "test", ""), find, recipe
    )
    assert [line["file"] for line in found["frames"] if line["status"] == "face"] == list(crops)
    assert json.loads(json.dumps(found)) == found
    return found


def statuses(found: dict[str, Any]) -> dict[str, int]:
    return dict(Counter(line["status"] for line in found["frames"]))


def sentences(found: dict[str, Any], recipe: Recipe) -> list[str]:
    return list(outcome_warnings([summarize_record(found, recipe)], recipe))


def test_a_video_of_oblong_pixels_has_the_face_of_the_one_with_square_pixels(
    tmp_path: Path, find: YuNet
) -> None:
    images = [shot((320, 240), [(1, left, 30, 180)]) for left in (60, 80)]
    square = film(tmp_path / "square.mp4", images)
    squashed = film(
        tmp_path / "squashed.mp4",
        [cv2.resize(image, (160, 240), interpolation=cv2.INTER_AREA) for image in images],
        shape="2:1",
    )
    right, found = (record(path, find, Recipe(size=32)) for path in (square, squashed))
    assert found["picture"] == {
        "width": 320,
        "height": 240,
        "pixel_aspect": "2:1",
        "tone_mapped": None,
        "interlaced": False,
    }
    for one, other in zip(found["frames"], right["frames"], strict=True):
        assert one["box"] == pytest.approx(other["box"], abs=10)
        assert one["side"] == pytest.approx(min(one["box"][2] / 2, one["box"][3]), abs=0.1)
    assert sentences(right, Recipe()) == []
    assert any(
        said.startswith("Pixels that are not square: in 1 of 1 videos, squashed among them")
        for said in sentences(found, Recipe())
    )


def test_damaged_frames_are_left_out_or_kept_with_a_mark(tmp_path: Path, find: YuNet) -> None:
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(image + rng.normal(0, 15, image.shape), 0, 255).astype(np.uint8)
        for image in walk(24)
    ]
    path = bitten(
        film(tmp_path / "live.ts", noisy, options={"g": "8", "bf": "2"}), 0.4, seed=1, count=6
    )
    found = record(path, find, recipe := Recipe(size=32, min_face=0))
    number = statuses(found)["corrupt"]
    assert 1 <= number < len(found["frames"])
    (said,) = sentences(found, recipe)
    assert said.startswith(
        f"Frames that are damaged and patched by the decoder: {number}, in 1 of 1 videos, live "
        "among them; they are left out"
    )
    kept = record(path, find, recipe := Recipe(size=32, min_face=0, keep_corrupt=True))
    assert "corrupt" not in statuses(kept)
    assert sum(line.get("corrupt", False) for line in kept["frames"]) == number
    assert sentences(kept, recipe)[0].endswith("they are kept.")


def test_doctor_names_a_clip_that_the_decoder_had_to_patch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = film(
        tmp_path / "live.ts",
        [rng.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(6)],
        options={"g": "6"},
    )
    assert examine(Job(str(path), path.stat().st_size, False, True)).error is None
    bitten(path, 0.5, seed=1, count=6)
    error = examine(Job(str(path), path.stat().st_size, False, True)).error
    assert error is not None
    assert "live.ts is damaged, and was patched by the decoder" in error


def test_small_faces_are_reported_and_left_out_when_asked(tmp_path: Path, find: YuNet) -> None:
    path = film(tmp_path / "far.mp4", [shot((320, 240), [(1, 40, 40, 64)])] * 3)
    for recipe, expected, sentence in (
        (
            Recipe(size=32),
            {"face": 3},
            "Faces smaller than min_face=50 pixels: 3, in 1 of 1 videos, far among them; they are "
            "kept",
        ),
        (Recipe(size=32, keep_small=False), {"small": 3}, "they are left out."),
        (Recipe(size=32, keep_small=False, min_face=0), {"face": 3}, None),
    ):
        found = record(path, find, recipe)
        assert statuses(found) == expected
        said = sentences(found, recipe)
        assert [sentence in one for one in said] == ([] if sentence is None else [True])
        assert all(
            line["side"] == pytest.approx(min(line["box"][2:]), abs=0.1) for line in found["frames"]
        )
        assert found["frames"][0]["side"] < 50


def test_videos_that_seldom_show_a_face_are_named(tmp_path: Path, find: YuNet) -> None:
    some = record(
        film(tmp_path / "some.mp4", [*[EMPTY] * 3, *walk(2)], options={"g": "1"}),
        find,
        Recipe(size=32),
    )
    none = record(film(tmp_path / "none.mp4", [EMPTY] * 3), find, Recipe(size=32))
    assert statuses(some) == {"none": 3, "face": 2}
    assert sentences(some, Recipe()) == [
        "A face in fewer than half of the frames: in 1 of 1 videos, some among them."
    ]
    assert sentences(none, Recipe()) == [
        (
            "No face at all: in 1 of 1 videos, none among them; a test counts them as videos "
            "without a score (coverage=)."
        )
    ]


def test_all_people_become_tracks_of_their_own(tmp_path: Path) -> None:
    pair = [
        shot((320, 128), [(1, 8 + place, 8, 112), (2, 200 - place, 16, 88)]) for place in range(4)
    ]
    for domain in ("real", "swap"):
        film(
            tmp_path / "videos/test" / domain / "two.mp4",
            [*pair[:2], shot((320, 128), [(1, 10, 8, 112)]), pair[3]],
            options={"g": "1"},
        )
    source = functools.partial(
        folder.scan,
        dataset="mine",
        layout="{split}/{domain}/{video}",
        splits={"test": "test"},
        real=["real"],
    )
    data = Selection(
        name="mine",
        root=str(tmp_path / "videos"),
        source=source,
        train=["mine"],
        test=["mine"],
    )
    out, recipe = tmp_path / "crops", Recipe(size=32, min_face=0, faces="all")
    extract(data, YuNet, recipe, out)
    manifest = read_manifest(out / "manifest.parquet", out).validate()
    table = manifest.table.filter(domain="swap").sort("video", "index")
    assert table.select("video", "index").rows() == [
        *(("mine/swap/two", index) for index in range(4)),
        *(("mine/swap/two_person2", index) for index in (0, 1, 3)),
    ]
    assert set(table["label"]) == {1}
    assert all(Path(path).is_file() for path in manifest.files())
    found = json.loads((out / "mine/swap/two/video.json").read_text())
    lefts = {
        number: [line["box"][0] < 150 for line in found["frames"] if line["person"] == number]
        for number in (1, 2)
    }
    assert lefts == {1: [True] * 4, 2: [False] * 3}
    assert sentences(found, recipe) == []
    assert (
        "Several faces in most of the frames: in 1 of 1 videos"
        in sentences(found, Recipe(min_face=0))[0]
    )


def test_crops_made_before_a_choice_existed_count_as_made_by_its_default(tmp_path: Path) -> None:
    old = {
        "frames": 32,
        "sampling": "spread",
        "size": 256,
        "margin": 1.3,
        "align": True,
        "track": True,
        "format": "png",
        "quality": 95,
    }
    (tmp_path / "extract.json").write_text(json.dumps(old))
    now = old | {"faces": "largest", "min_face": 50, "keep_small": True, "keep_corrupt": False}
    write_settings(tmp_path, now)
    with pytest.raises(
        InputError, match="were made with faces=largest, not all; choose another out=FOLDER"
    ):
        write_settings(tmp_path, now | {"faces": "all"})
    assert json.loads((tmp_path / "extract.json").read_text()) == old


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"faces": "both"}, "faces=both is unknown; choose one of largest, all"),
        (
            {"faces": "all", "track": False},
            "faces=all follows people and cannot be combined with track=false",
        ),
        ({"min_face": -1}, "min_face=-1 must be at least 0 pixels"),
    ],
)
def test_choices_that_cannot_be_followed_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**changes)
