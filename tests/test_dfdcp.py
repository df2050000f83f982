"""The preview of the Deepfake Detection Challenge against a generated copy of its official tree."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem, Video
from fmsd.data.sources import deepfakebench, dfdcp
from fmsd.errors import InputError
from tests.conftest import write_image

LISTED: dict[str, dict[str, Any]] = {
    "original_videos/643049/643049_A_001.mp4": {
        "label": "real",
        "set": "train",
        "target_id": "643049",
        "swapped_id": None,
        "augmentations": [],
    },
    "original_videos/1260311/1260311_C_001.mp4": {"label": "real", "set": "test"},
    "method_A/643049/643049_A/643049_1224068_A_001.mp4": {
        "label": "fake",
        "set": "train",
        "target_id": "643049",
        "swapped_id": "1224068",
    },
    "method_B/1260311/1260311_C/1255229_1260311_C_001.mp4": {"label": "fake", "set": "test"},
}
EXPECTED = {
    "dfdcp/real/643049_A_001": (0, "real", "train"),
    "dfdcp/real/1260311_C_001": (0, "real", "test"),
    "dfdcp/method_A/643049_1224068_A_001": (1, "method_A", "train"),
    "dfdcp/method_B/1255229_1260311_C_001": (1, "method_B", "test"),
}


def copy(root: Path, listed: dict[str, Any] = LISTED) -> Path:
    """A copy with empty videos."""
    for name in listed:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "dataset.json").write_text(json.dumps(listed))
    return root


def described(root: Path) -> dict[str, tuple[int, str, str]]:
    return {
        entry.video: (entry.label, entry.domain, entry.split)
        for entry in dfdcp.scan(root, "dfdcp")
        if isinstance(entry, Video)
    }


@pytest.mark.parametrize("inside", [".", "dfdc_preview_set"])
def test_the_json_tells_label_and_split_and_the_folder_the_forgery(
    tmp_path: Path, inside: str
) -> None:
    copy(tmp_path / inside)
    assert described(tmp_path) == EXPECTED
    assert not any(isinstance(entry, Problem) for entry in dfdcp.scan(tmp_path, "dfdcp"))


def test_frames_lie_beside_each_video_or_together(tmp_path: Path) -> None:
    for root, place in ((tmp_path / "beside", None), (tmp_path / "together", "frames")):
        for name in LISTED:
            video = Path(name)
            folder = (
                root / video.with_suffix("")
                if place is None
                else root / video.parts[0] / place / video.stem
            )
            write_image(folder / "000.png", 0, 8)
        (root / "dataset.json").write_text(json.dumps(LISTED))
        manifest = from_entries(dfdcp.scan(root, "dfdcp"), root).validate()
        assert {
            video: (label, domain, split)
            for video, label, domain, split in manifest.table.select(
                "video", "label", "domain", "split"
            ).rows()
        } == (EXPECTED)


def test_equal_names_in_two_folders_of_a_method_stay_two_videos(tmp_path: Path) -> None:
    root = copy(
        tmp_path,
        LISTED | {"method_A/1/1_A/643049_1224068_A_001.mp4": {"label": "fake", "set": "test"}},
    )
    assert {video for video in described(root) if "method_A" in video} == {
        "dfdcp/method_A/643049/643049_A/643049_1224068_A_001",
        "dfdcp/method_A/1/1_A/643049_1224068_A_001",
    }


def test_absent_videos_and_labels_that_contradict_their_folder_are_told(tmp_path: Path) -> None:
    root = copy(
        tmp_path, LISTED | {"method_A/1/1_A/1_2_A_001.mp4": {"label": "real", "set": "test"}}
    )
    (root / "original_videos/643049/643049_A_001.mp4").unlink()
    problems = [entry for entry in dfdcp.scan(root, "dfdcp") if isinstance(entry, Problem)]
    assert [problem.kind for problem in problems] == ["missing", "mislabelled"]
    assert "lists original_videos/643049/643049_A_001.mp4" in problems[0].what
    assert described(root) == {
        video: about for video, about in EXPECTED.items() if video != "dfdcp/real/643049_A_001"
    } | {"dfdcp/method_A/1_2_A_001": (1, "method_A", "test")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"dataset\.json is not a JSON file"),
        (
            "[]",
            r"dataset\.json is a list, not an object; put the dataset's own dataset\.json there",
        ),
        (
            '{"method_A/1.mp4": {"label": "fake"}}',
            r"method_A/1\.mp4 in .*dataset\.json has no 'set'; correct that entry, or remove it",
        ),
        (
            '{"method_A/1.mp4": {"label": "fake", "set": "later"}}',
            r"method_A/1\.mp4 / set in .* is 'later', none of train",
        ),
        (
            '{"method_A/1.mp4": {"label": 1, "set": "test"}}',
            r"each video a label and a set: that of method_A/1\.mp4 is 1; write real or fake",
        ),
        (
            '{"method_A/1.mp4": "fake"}',
            r"method_A/1\.mp4 in .*dataset\.json is text, not an object",
        ),
    ],
)
def test_a_json_that_does_not_tell_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message):
        list(dfdcp.scan(tmp_path, "dfdcp"))


def test_other_copies_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no dataset\.json in .*data\.root=PATH"):
        list(dfdcp.scan(tmp_path, "dfdcp"))
    root = copy(tmp_path / "copy")
    with pytest.raises(InputError, match=r"has no folder crops; correct data\.source\.frames"):
        list(dfdcp.scan(root, "dfdcp", frames="crops"))
    (root / "dataset.json").write_text('{"1.mp4": {"label": "fake", "set": "test"}}')
    with pytest.raises(InputError, match=r"lists 1\.mp4, which is in none of the folders"):
        list(dfdcp.scan(root, "dfdcp"))


def test_deepfakebench_json_wins_where_the_root_holds_it(tmp_path: Path) -> None:
    root = copy(tmp_path)
    source = functools.partial(
        deepfakebench.scan_json_or_tree,
        file="DFDCP.json",
        dataset="dfdcp",
        tree=functools.partial(dfdcp.scan, dataset="dfdcp"),
    )
    assert len(list(source(root))) == 4
    write_image(root / "method_A" / "frames" / "v" / "000.png", 0, 8)
    video = {"label": "DFDCP_FakeA", "frames": ["DFDCP\\method_A\\frames\\v\\000.png"]}
    (root / "DFDCP.json").write_text(
        json.dumps({"DFDCP": {"DFDCP_FakeA": {"train": {"v": video}}}})
    )
    assert from_entries(source(root), root).table["video"].to_list() == ["dfdcp/method_A/v"]
