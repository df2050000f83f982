"""TalkingHeadBench against a generated copy, with listed real videos of other datasets."""

import json
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.sources import talkingheadbench
from fmsd.errors import InputError
from tests.conftest import write_image

SPLITS = ("train", "val", "test")
BY_SPLIT = {split: [f"--Jiv5_{split}.mp4", f"00{n}"] for n, split in enumerate(SPLITS)}
BY_SOURCE = {
    "CelebV-HQ": {split: [f"CelebV-HQ/--Jiv5_{split}.mp4"] for split in SPLITS},
    "FF++": {split: [f"00{n}.mp4"] for n, split in enumerate(SPLITS)},
}


def tree(root: Path, listed: Any = BY_SPLIT) -> Path:
    bench = root / "bench"
    for split in SPLITS:
        name = f"00012--{split}_0--Hallo"
        write_image(bench / "fake" / "Hallo" / split / "frames" / name / "000.png", 0, 8)
    write_image(bench / "fake/additional_dataset/MAGI-1/frames/00013--b--MAGI-1/000.png", 0, 8)
    (bench / "true").mkdir()
    (bench / "true" / "true_dataset_split.json").write_text(json.dumps(listed))
    for folder, names in (
        ("celebv", [f"--Jiv5_{split}" for split in SPLITS]),
        ("raw", ["000", "001", "002", "003"]),
    ):
        for name in names:
            write_image(root / folder / "frames" / name / "000.png", 0, 8)
    return bench


def reals(root: Path) -> list[str | int]:
    return [str(root / "celebv"), str(root / "raw")]


@pytest.mark.parametrize("listed", [BY_SPLIT, BY_SOURCE])
def test_real_videos_are_those_of_the_list_in_its_splits(tmp_path: Path, listed: Any) -> None:
    bench = tree(tmp_path, listed)
    entries = talkingheadbench.scan(bench, reals=reals(tmp_path))
    table = from_entries(entries, bench).validate().table
    assert set(table.select("video", "label", "split").rows()) == {
        *((f"talkingheadbench/Hallo/00012--{s}_0--Hallo", 1, s) for s in SPLITS),
        ("talkingheadbench/MAGI-1/00013--b--MAGI-1", 1, "test"),
        *((f"talkingheadbench/real/--Jiv5_{s}", 0, s) for s in SPLITS),
        *((f"talkingheadbench/real/00{n}", 0, s) for n, s in enumerate(SPLITS)),
    }


def test_missing_real_videos_and_splits_are_told(tmp_path: Path) -> None:
    bench = tree(tmp_path)
    (bench / "fake/Hallo/val").rename(tmp_path / "away")
    entries = list(talkingheadbench.scan(bench, additional=False, reals=[str(tmp_path / "raw")]))
    told = [str(entry) for entry in entries if isinstance(entry, Problem)]
    assert any("Hallo has no folder val" in text for text in told)
    assert sum("lists --Jiv5_" in text for text in told) == 3
    assert not any("MAGI-1" in str(entry) for entry in entries)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"train": ["a"], "test": ["a.mp4"]}, "lists a in two splits"),
        ({"training": ["a"]}, "training in .* is in 0 of the splits"),
        ({"train": {"a": "b"}}, "train / a in .* is no list of names"),
        ({"train": [1]}, "train in .* is no list of names"),
    ],
)
def test_a_list_of_another_form_is_refused(tmp_path: Path, listed: Any, message: str) -> None:
    bench = tree(tmp_path, listed)
    with pytest.raises(InputError, match=message):
        list(talkingheadbench.scan(bench, reals=reals(tmp_path)))


def test_without_real_videos_it_is_refused_unless_the_fakes_are_asked_for(tmp_path: Path) -> None:
    bench = tree(tmp_path)
    with pytest.raises(InputError, match="TalkingHeadBench is published without real videos"):
        list(talkingheadbench.scan(bench))
    assert len(list(talkingheadbench.scan(bench, reals=[]))) == 4
