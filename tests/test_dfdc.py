"""The Deepfake Detection Challenge against generated copies of its official tree."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem, Video
from fmsd.data.sources import deepfakebench, dfdc
from fmsd.errors import InputError
from tests.conftest import write_image

TRAIN: tuple[dict[str, dict[str, Any]], ...] = (
    {
        "aaqaifqrwn.mp4": {"label": "FAKE", "split": "train", "original": "afoovlsmtx.mp4"},
        "afoovlsmtx.mp4": {"label": "REAL", "split": "train"},
    },
    {
        "bbhpvrmbse.mp4": {"label": "FAKE", "split": "train", "original": "bddjdhzfze.mp4"},
        "bddjdhzfze.mp4": {"label": "REAL", "split": "train"},
    },
)
VALIDATION = "filename,label\nvkekkdzorh.mp4,0\nwxyzabcdef.mp4,1\n"
TEST = {"aalscayrfi.mp4": {"is_fake": 1, "augmentations": {}}, "zzzzabcdef.mp4": {"is_fake": 0}}
EXPECTED = {
    "dfdc/fake/aaqaifqrwn": "train",
    "dfdc/real/afoovlsmtx": "train",
    "dfdc/fake/bbhpvrmbse": "train",
    "dfdc/real/bddjdhzfze": "train",
    "dfdc/real/vkekkdzorh": "val",
    "dfdc/fake/wxyzabcdef": "val",
    "dfdc/fake/aalscayrfi": "test",
    "dfdc/real/zzzzabcdef": "test",
}


def part(folder: Path, names: list[str], frames: str | None = None) -> Path:
    """The videos of a part, empty, or a frame of each in a folder `frames`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if frames is None:
            (folder / name).touch()
        else:
            write_image(folder / frames / Path(name).stem / "000.png", 0, 8)
    return folder


def copy(root: Path, train: str = "train/dfdc_train_part_{0}", frames: str | None = None) -> Path:
    for number, listed in enumerate(TRAIN):
        (part(root / train.format(number), list(listed), frames) / "metadata.json").write_text(
            json.dumps(listed)
        )
    names = [line.partition(",")[0] for line in VALIDATION.splitlines()[1:]]
    (part(root / "validation", names, frames) / "labels.csv").write_text(VALIDATION)
    (part(root / "test", list(TEST), frames) / "metadata.json").write_text(json.dumps(TEST))
    return root


def splits(root: Path) -> dict[str, str]:
    found = [entry for entry in dfdc.scan(root, "dfdc") if isinstance(entry, Video)]
    for entry in found:
        assert (entry.label, entry.domain) == (
            (0, "real") if "/real/" in entry.video else (1, "fake")
        )
    return {entry.video: entry.split for entry in found}


@pytest.mark.parametrize(
    "train",
    [
        "train/dfdc_train_part_{0}",
        "dfdc_train_part_{0}",
        "train/dfdc_train_part_0{0}/dfdc_train_part_{0}",
    ],
)
def test_every_part_is_read_wherever_its_archive_was_unpacked(tmp_path: Path, train: str) -> None:
    root = copy(tmp_path, train)
    assert splits(root) == EXPECTED
    assert not any(isinstance(entry, Problem) for entry in dfdc.scan(root, "dfdc"))


def test_a_single_part_is_a_root_too(tmp_path: Path) -> None:
    root = copy(tmp_path)
    assert splits(root / "train" / "dfdc_train_part_0") == {
        "dfdc/fake/aaqaifqrwn": "train",
        "dfdc/real/afoovlsmtx": "train",
    }
    assert splits(root / "test") == {"dfdc/fake/aalscayrfi": "test", "dfdc/real/zzzzabcdef": "test"}


def test_the_test_labels_may_be_a_table_with_the_videos_in_a_folder_of_their_own(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "test"
    part(folder / "videos", list(TEST))
    (folder / "labels.csv").write_text("filename,label\naalscayrfi.mp4,1\nzzzzabcdef.mp4,0\n")
    assert splits(tmp_path) == {"dfdc/fake/aalscayrfi": "test", "dfdc/real/zzzzabcdef": "test"}


@pytest.mark.parametrize("frames", ["frames", "faces", "."])
def test_extracted_frames_make_a_valid_manifest(tmp_path: Path, frames: str) -> None:
    root = copy(tmp_path, frames=frames)
    manifest = from_entries(dfdc.scan(root, "dfdc"), root).validate()
    assert dict(manifest.table.select("video", "split").rows()) == EXPECTED


def test_a_name_that_two_parts_hold_is_two_videos(tmp_path: Path) -> None:
    root = copy(tmp_path)
    (part(root / "train_sample_videos", list(TRAIN[0])) / "metadata.json").write_text(
        json.dumps(TRAIN[0])
    )
    assert {video for video in splits(root) if "aaqaifqrwn" in video} == {
        "dfdc/fake/train/dfdc_train_part_0/aaqaifqrwn",
        "dfdc/fake/train_sample_videos/aaqaifqrwn",
    }


def test_what_is_absent_unlisted_or_unlabelled_is_told(tmp_path: Path) -> None:
    root = copy(tmp_path)
    (root / "test" / "zzzzabcdef.mp4").unlink()
    (root / "validation" / "stranger.mp4").touch()
    part(root / "test_videos", ["unknown.mp4"])
    problems = {
        entry.kind: entry.what for entry in dfdc.scan(root, "dfdc") if isinstance(entry, Problem)
    }
    assert "lists zzzzabcdef, which" in problems.pop("missing")
    assert "stranger.mp4 has no label and is left out" in problems.pop("unlisted")
    assert "test_videos holds videos without metadata.json or labels.csv" in problems.pop(
        "unlabelled"
    )
    assert problems == {}
    assert splits(root) == {
        video: split for video, split in EXPECTED.items() if "zzzzabcdef" not in video
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.json",
            "{",
            r"metadata\.json is not a JSON file \(Expecting property name"
            r".*fetch it again if it is cut off",
        ),
        (
            "metadata.json",
            "<html>",
            r"metadata\.json is not a JSON file .*; fetch the JSON file instead",
        ),
        (
            "metadata.json",
            "[]",
            r"metadata\.json is a list, not an object; put the dataset's own metadata\.json there",
        ),
        (
            "metadata.json",
            '{"a.mp4": "FAKE"}',
            r"a\.mp4 in .*metadata\.json is text, not an object",
        ),
        (
            "metadata.json",
            '{"a.mp4": {"label": "MAYBE"}}',
            r"metadata\.json does not give each video a label: a\.mp4 has label='MAYBE'; "
            r"correct that to REAL or FAKE",
        ),
        ("metadata.json", '{"a.mp4": {"label": null}}', r"a\.mp4 has label=None"),
        ("metadata.json", '{"a.mp4": {"label": ["FAKE"]}}', r"a\.mp4 has label=\['FAKE'\]"),
        (
            "metadata.json",
            '{"a.mp4": {"label": "FAKE", "split": ["x"]}}',
            r"a\.mp4 / split in .* is \['x'\], none of train",
        ),
        (
            "metadata.json",
            '{"a.mp4": {"split": "train"}}',
            r"metadata\.json does not give each video a label: a\.mp4 has none; correct that",
        ),
        (
            "metadata.json",
            '{"a.mp4": {"label": "FAKE"}, "a.mp4": {"label": "REAL"}}',
            r"gives a\.mp4 twice, with different values",
        ),
        (
            "metadata.json",
            '{"a.mp4": {"label": "FAKE"}, "a.avi": {"label": "REAL"}}',
            r"lists a\.avi twice, with two labels",
        ),
        (
            "labels.csv",
            "file,label\na.mp4,1\n",
            r"labels\.csv lacks the columns filename; it needs filename, label",
        ),
        ("labels.csv", "filename,label\na.mp4,2\n", r"a\.mp4 has label='2'"),
        ("labels.csv", "filename,label\na.mp4\n", r"a\.mp4 has label=''"),
        (
            "labels.csv",
            "filename,label\na.mp4,1,b.mp4\n",
            r"Line 2 of .*labels\.csv has 3 cells, but the header 2",
        ),
        (
            "labels.csv",
            'filename,label\n"a.mp4,1\n',
            r"Line 2 of .*labels\.csv cannot be read \(unexpected end of data\)",
        ),
    ],
)
def test_lists_without_labels_are_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (part(tmp_path / "test", ["a.mp4"]) / name).write_text(content)
    with pytest.raises(InputError, match=message):
        list(dfdc.scan(tmp_path, "dfdc"))


def test_other_copies_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*data\.root=PATH"):
        list(dfdc.scan(tmp_path / "none", "dfdc"))
    with pytest.raises(InputError, match=r"holds no folder with a metadata\.json or labels\.csv"):
        list(dfdc.scan(part(tmp_path / "empty", []), "dfdc"))
    (part(tmp_path / "mine" / "somewhere", ["a.mp4"]) / "labels.csv").write_text(
        "filename,label\na.mp4,1\n"
    )
    with pytest.raises(
        InputError,
        match=r"The split of the videos of .*somewhere.* is unknown; "
        r"name their folder train, validation or test",
    ):
        list(dfdc.scan(tmp_path / "mine", "dfdc"))


def test_deepfakebench_json_wins_where_the_root_holds_it(tmp_path: Path) -> None:
    root = copy(tmp_path, frames="frames")
    source = functools.partial(
        deepfakebench.scan_json_or_tree,
        file="DFDC.json",
        dataset="dfdc",
        tree=functools.partial(dfdc.scan, dataset="dfdc"),
    )
    assert from_entries(source(root), root).validate().videos == 8
    video = {"label": "DFDC_Fake", "frames": ["DFDC/test/frames/aalscayrfi/000.png"]}
    (root / "DFDC.json").write_text(
        json.dumps({"DFDC": {"DFDC_Fake": {"test": {"aalscayrfi": video}}}})
    )
    assert from_entries(source(root), root).table["video"].to_list() == ["dfdc/fake/aalscayrfi"]
