"""FFIW-10K: source holds real videos, target manipulated ones."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem, Video
from fmsd.data.sources import ffiw
from fmsd.errors import InputError
from tests.conftest import write_image

NAMES = ("0a1b_12", "zz_3")


def tree(root: Path, splits: tuple[str, ...] = ("train", "val"), extracted: bool = True) -> Path:
    for side in ("source", "target", "target_mask"):
        for split in splits:
            for name in NAMES:
                folder = root / side / split
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}.mp4").touch()
                if extracted and side != "target_mask":
                    write_image(folder / "frames" / name / "000.png", 0, 8)
    return root


def test_the_validation_videos_are_tested_on_by_default(tmp_path: Path) -> None:
    root = tree(tmp_path, ("train", "val", "test"))
    manifest = from_entries(ffiw.scan(root), root).validate()
    assert set(manifest.where(split="test").table["video"]) == {
        f"ffiw/{domain}/val/{name}" for domain in ("real", "fake") for name in NAMES
    }
    assert set(manifest.table["split"]) == {"train", "test"}
    assert not manifest.table["path"].str.contains("mask").any()
    assert set(
        manifest.table.select("path", "label")
        .with_columns(path=manifest.table["path"].str.head(6))
        .rows()
    ) == {("source", 0), ("target", 1)}


def test_the_later_test_videos_can_be_tested_on(tmp_path: Path) -> None:
    root = tree(tmp_path, ("train", "val", "test"))
    manifest = from_entries(ffiw.scan(root, test="test"), root).validate()
    named = manifest.table.select("split", "video").with_columns(
        folder=manifest.table["video"].str.split("/").list.get(2)
    )
    assert (named["split"] == named["folder"]).all()
    assert set(named["split"]) == {"train", "val", "test"}


def test_absent_folders_are_told(tmp_path: Path) -> None:
    root = tree(tmp_path, ("val",), extracted=False)
    entries = list(ffiw.scan(root))
    assert [entry.what.split()[4] for entry in entries if isinstance(entry, Problem)] == [
        f"{root}/{side}/train" for side in ("source", "target")
    ]
    assert [entry.file for entry in entries if isinstance(entry, Video)] == [
        root / side / "val" / f"{name}.mp4" for side in ("source", "target") for name in NAMES
    ]


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no source/val"):
        list(ffiw.scan(tmp_path))
    with pytest.raises(InputError, match=r"no folder train to test on"):
        list(ffiw.scan(tree(tmp_path), test="train"))
