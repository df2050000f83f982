"""KoDF: labels, methods and persons by the names of its files."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.sources import kodf
from fmsd.errors import InputError
from tests.conftest import write_image

A, B = "0a1b2c3d4e5f6a7b8c9d", "123456"
FILES = [
    f"original_content/actors/videos/{A}/{A}_001",
    f"original_content/actors/videos/{B}/{B}_002",
    f"manipulated_content/dfl/videos/20200901/{A}/{A}_{B}_1_0001",
    f"manipulated_content/audio-driven/videos/20200902/{B}/{B}_{A}_5_0002",
]


def tree(root: Path, files: list[str] = FILES) -> Path:
    for file in files:
        write_image(root / file / "0.png", 0, 8)
    return root


def test_names_tell_method_and_person_in_any_folders(tmp_path: Path) -> None:
    root = tree(tmp_path / "a")
    manifest = from_entries(kodf.scan(root), root).validate()
    rows = set(manifest.table.select("video", "label", "domain", "split").rows())
    flat = tree(tmp_path / "b", [file.rpartition("/")[2] for file in FILES])
    manifest = from_entries(kodf.scan(flat), flat)
    assert rows == set(manifest.table.select("video", "label", "domain", "split").rows())
    assert {row[1:] for row in rows} == {
        (0, "real", "test"), (1, "dfl", "test"), (1, "audio-driven", "test"),
    }  # fmt: skip


def test_validation_keeps_a_person_together(tmp_path: Path) -> None:
    files = [f"{B[:-1]}{digit}_{take}" for digit in range(9) for take in ("001", "002")]
    files += [f"{A[:-1]}{digit}_{take}" for digit in range(9) for take in ("001", "002")]
    root = tree(tmp_path, files)
    held = from_entries(kodf.scan(root, split="train"), root).hold_out(0.3).table
    persons = {
        split: set(held.filter(split=split)["video"].str.replace(r"_\d+$", ""))
        for split in ("train", "val")
    }
    assert persons["val"]
    assert not persons["val"] & persons["train"]


def test_other_names_are_counted_and_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path, [*FILES, "extra/one", "extra/two"])
    problems = [entry for entry in kodf.scan(root) if isinstance(entry, Problem)]
    assert [(problem.kind, problem.files) for problem in problems] == [("unlisted", 2)]


def test_folders_that_are_no_videos_may_have_equal_names(tmp_path: Path) -> None:
    root = tree(tmp_path, [*FILES, "a/logs", "b/logs"])
    whole = from_entries(kodf.scan(root), root).table
    name = FILES[2].rpartition("/")[2]
    for place in ("manipulated_content/dfl/x/000123", "manipulated_content/dffs/x/000123"):
        (root / place).mkdir(parents=True)
    for place in ("0", "z"):  # before and behind the one with frames
        (root / place / name).mkdir(parents=True)
    assert from_entries(kodf.scan(root), root).table.equals(whole)
    told = [entry for entry in kodf.scan(root) if isinstance(entry, Problem)]
    assert [(problem.kind, problem.files) for problem in told] == [("unlisted", 4)]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (f"manipulated_content/fo/{A}_{B}_1_0009", "is dfl by its name, but lies in fo"),
        (f"original_content/{A}_{B}_1_0009", "is dfl by its name, but lies in original_content"),
        (f"manipulated_content/{A}_0009", "is real by its name, but lies in manipulated_content"),
        (f"x/{A}_{B}_7_0009", "has the code 7, none of 1, 2, 3, 4, 5"),
        (f"again/{A}_001", "are one video by their names"),
    ],
)
def test_contradictions_are_refused(file: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        list(kodf.scan(tree(tmp_path, [*FILES, file])))
