"""WildDeepfake: sequences of face crops, numbered anew in every archive."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.manifest import VIDEO_SOURCE
from fmsd.data.sources import wilddeepfake
from fmsd.errors import InputError
from tests.conftest import write_image


def tree(root: Path, archives: int = 2, sequences: int = 2) -> Path:
    for folder in wilddeepfake.LABEL_FOLDERS:
        for archive in range(archives):
            for sequence in range(sequences):
                for frame in (9, 10, 117):
                    write_image(
                        root
                        / folder
                        / str(archive)
                        / folder.split("_")[0]
                        / str(sequence)
                        / f"{frame}.png",
                        frame,
                        8,
                    )
            (root / folder / f"{archive}.tar.gz").touch()
    return root


def test_equal_sequence_names_are_videos_of_their_own(tmp_path: Path) -> None:
    manifest = from_entries(wilddeepfake.scan(tree(tmp_path)), tmp_path).validate()
    assert manifest.videos == 4 * 2 * 2
    for split in ("train", "test"):
        assert set(manifest.where(split=split).table["video"]) == {
            f"wilddeepfake/{domain}/{split}{archive}_{sequence}"
            for domain in ("real", "fake")
            for archive in (0, 1)
            for sequence in (0, 1)
        }
    assert set(manifest.table.select("domain", "label").rows()) == {("real", 0), ("fake", 1)}


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    manifest = from_entries(wilddeepfake.scan(tree(tmp_path)), tmp_path)
    ordered = (
        manifest.table.filter(video="wilddeepfake/fake/test1_0").sort("index")["path"].to_list()
    )
    assert ordered == [f"fake_test/1/fake/0/{frame}.png" for frame in (9, 10, 117)]


def test_sequences_of_an_archive_are_held_out_together(tmp_path: Path) -> None:
    held = (
        from_entries(wilddeepfake.scan(tree(tmp_path)), tmp_path)
        .validate()
        .hold_out(0.5)
        .where(split="val")
    )
    assert held.table["video"].str.extract(r"/train(\d+)_\d+$").n_unique() == 1
    assert held.videos == 2 * 2


def test_no_archive_seems_to_be_on_both_sides_of_the_split(tmp_path: Path) -> None:
    sources = (
        from_entries(wilddeepfake.scan(tree(tmp_path)), tmp_path)
        .table.select("split", source=VIDEO_SOURCE)
        .unique()
    )
    assert set(sources.rows()) == {
        (split, f"{split}{archive}") for split in ("train", "test") for archive in (0, 1)
    }


def test_what_is_wrong_with_a_copy_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "fake_test" / "7.tar.gz").touch()
    (root / "real_test" / "0" / "real").rename(root / "real_test" / "0" / "fake")
    (root / "fake_train").rename(root / "elsewhere")
    found = {
        entry.kind: entry.what for entry in wilddeepfake.scan(root) if isinstance(entry, Problem)
    }
    assert set(found) == {"packed", "mislabelled", "missing"}
    assert "fake_test holds 1 archives that are not unpacked" in found["packed"]
    assert "real_test/0/fake lies in real_test" in found["mislabelled"]
    assert "does not hold fake_train" in found["missing"]
    assert from_entries(wilddeepfake.scan(root), root).validate().videos == 4 + 4 + 2


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds none of real_train, fake_train, real_test, fake_test"
    ):
        list(wilddeepfake.scan(tmp_path))
