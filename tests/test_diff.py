"""DiFF: images by condition and method, with real ones inside or elsewhere."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.sources import diff
from fmsd.errors import InputError
from tests.conftest import write_image


def grow(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        write_image(root / name / "a.png", number, 8)
    return root


def rows(root: Path, **options: object) -> set[tuple[object, ...]]:
    table = from_entries(diff.scan(root, **options), root).validate().table  # pyright: ignore[reportArgumentType]
    assert table["video"].n_unique() == table.height
    return set(table.select("domain", "label", "split").rows())


def test_condition_method_and_split_are_those_of_the_folders_in_any_order(tmp_path: Path) -> None:
    grow(
        tmp_path,
        "train/T2I/Midjourney",
        "test/t2i/SDXL",
        "FE/val/Imagic",
        "I2I/SDXL",
        "FS",
        "test/real",
    )
    assert rows(tmp_path) == {
        ("T2I_Midjourney", 1, "train"),
        ("T2I_SDXL", 1, "test"),
        ("FE_Imagic", 1, "val"),
        ("I2I_SDXL", 1, "test"),
        ("FS", 1, "test"),
        ("real", 0, "test"),
    }


def test_real_images_may_lie_elsewhere_and_must_be_somewhere(tmp_path: Path) -> None:
    root = grow(tmp_path / "diff", "FS/DCFace")
    grow(tmp_path / "pristine", "x", "y")
    with pytest.raises(InputError, match="DiFF is published without real videos"):
        rows(root)
    assert rows(root, reals=[str(tmp_path / "pristine")]) == {
        ("FS_DCFace", 1, "test"),
        ("real", 0, "test"),
    }
    assert rows(root, reals=[]) == {("FS_DCFace", 1, "test")}


def test_real_images_elsewhere_have_the_split_of_their_folders(tmp_path: Path) -> None:
    root = grow(tmp_path / "diff", "train/FS/DCFace", "test/FS/DCFace")
    grow(tmp_path / "pristine", "Train/x", "validation", "test", "y")
    fakes = {("FS_DCFace", 1, "train"), ("FS_DCFace", 1, "test")}
    for reals, split in (("pristine", "test"), ("pristine/Train", "train"), ("pristine/y", "val")):
        found = rows(root, reals=[str(tmp_path / reals)], split="val" if split == "val" else "test")
        kept = {split} if reals != "pristine" else {"train", "val", "test"}
        assert found == fakes | {("real", 0, name) for name in kept}
    grow(tmp_path / "pristine", "Train/test")
    with pytest.raises(InputError, match=r"Train/test lie in test and in train"):
        rows(root, reals=[str(tmp_path / "pristine")])


def test_images_of_no_condition_are_counted_those_of_two_refused(tmp_path: Path) -> None:
    grow(tmp_path, "FS", "real", "prompts")
    problems = [entry for entry in diff.scan(tmp_path) if isinstance(entry, Problem)]
    assert [problem.files for problem in problems] == [1]
    assert "prompts lie in none of T2I, I2I, FS, FE, real" in str(problems[0])
    for name, message in (
        ("FS/T2I", "lie in FS and in T2I"),
        ("test/val/FE", "lie in test and"),
    ):
        root = grow(tmp_path / name.replace("/", "-"), name)
        with pytest.raises(InputError, match=message):
            rows(root)
    with pytest.raises(InputError, match="holds no images below T2I"):
        rows(grow(tmp_path / "none", "real"))
