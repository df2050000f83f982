"""DeeperForensics-1.0 with the real videos of FaceForensics++."""

import json
from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem, Video
from fmsd.data.sources import deeperforensics
from fmsd.errors import InputError
from tests.conftest import write_image

PAIRS = {"train": [["071", "054"]], "val": [["720", "672"]], "test": [["953", "974"]]}
FAKES = {"train": ["071_M101", "953_W018"], "val": ["720_W136"], "test": ["974_M004"]}


def real_tree(root: Path) -> Path:
    for split, pairs in PAIRS.items():
        for name in pairs[0]:
            write_image(
                root / "original_sequences/youtube/c23/frames" / name / "000.png", int(name), 8
            )
        (root / f"{split}.json").write_text(json.dumps(pairs))
    return root


def tree(root: Path, frames: bool = True, variants: tuple[str, ...] = ("end_to_end",)) -> Path:
    (root / "lists/splits").mkdir(parents=True)
    for split, names in FAKES.items():
        (root / "lists/splits" / f"{split}.txt").write_text(
            "".join(f"{name}.mp4\n" for name in names)
        )
        for variant in variants:
            for name in names:
                folder = root / "manipulated_videos" / variant
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}.mp4").touch()
                if frames:
                    write_image(folder / "frames" / name / "000.png", 0, 8)
    return root


def test_fakes_follow_the_official_lists_and_real_videos_the_split_of_faceforensics(
    tmp_path: Path,
) -> None:
    root, real = tree(tmp_path / "deeper"), real_tree(tmp_path / "ff")
    manifest = from_entries(deeperforensics.scan(root, real=str(real)), root).validate()
    split_of = dict(manifest.table.select("video", "split").rows())
    assert {
        name: split_of[f"deeperforensics/end_to_end/{name}"]
        for names in FAKES.values()
        for name in names
    } == {name: split for split, names in FAKES.items() for name in names}
    # 953 stays a test video though a fake of it is trained on
    assert {
        split: split_of[f"deeperforensics/real/c23/{pairs[0][0]}"] for split, pairs in PAIRS.items()
    } == {split: split for split in PAIRS}
    assert manifest.table.filter(label=0)["path"].str.starts_with(str(real)).all()


def test_variants_are_domains_and_one_folder_may_hold_everything(tmp_path: Path) -> None:
    variants = ("end_to_end", "end_to_end_level_5", "reenact_postprocess")
    root = real_tree(tree(tmp_path, variants=variants))
    manifest = from_entries(deeperforensics.scan(root, variants=variants), root).validate()
    assert set(manifest.table["domain"]) == {"real", *variants}
    assert manifest.videos == 6 + 4 * len(variants)


def test_all_fakes_can_be_test_videos_without_the_lists(tmp_path: Path) -> None:
    root, real = tree(tmp_path / "deeper", frames=False), real_tree(tmp_path / "ff")
    (root / "lists/splits/val.txt").unlink()
    with pytest.raises(InputError, match=r"no .*splits/val\.txt; copy the folder lists"):
        list(deeperforensics.scan(root, real=str(real)))
    entries = [
        entry
        for entry in deeperforensics.scan(root, real=str(real), split="test")
        if isinstance(entry, Video)
    ]
    assert {entry.split for entry in entries if entry.label} == {"test"}
    assert {entry.file for entry in entries if entry.label} == set(
        (root / "manipulated_videos/end_to_end").glob("*.mp4")
    )


def test_absent_and_unlisted_videos_are_told_and_real_ones_are_needed(tmp_path: Path) -> None:
    root = tree(tmp_path / "deeper")
    folder = root / "manipulated_videos/end_to_end"
    (folder / "999_M101.mp4").touch()
    (folder / "720_W136.mp4").unlink()
    (folder / "frames/720_W136/000.png").unlink()
    (folder / "frames/720_W136").rmdir()
    found = [
        entry
        for entry in deeperforensics.scan(root, real=str(real_tree(tmp_path / "ff")))
        if isinstance(entry, Problem)
    ]
    missing, unlisted = sorted(found, key=lambda problem: problem.kind)
    assert (missing.kind, unlisted.kind) == ("missing", "unlisted")
    assert "lists 720_W136, which" in missing.what
    assert "999_M101.mp4 is in none of the official splits" in unlisted.what
    with pytest.raises(
        InputError, match=r"no original_sequences: .*are those of FaceForensics\+\+"
    ):
        list(deeperforensics.scan(root))
    with pytest.raises(InputError, match=r"no folder .*manipulated_videos/end_to_end_level_9"):
        list(deeperforensics.scan(root, variants=["end_to_end_level_9"]))
