"""DFDM against a generated copy, with the real videos of Celeb-DF v2."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.sources import dfdm
from fmsd.errors import InputError
from tests.conftest import write_image


def tree(root: Path) -> Path:
    for model, tag in (("DFaker", "4dfaker"), ("DFL-H128", "2dfl-h128")):
        for name in ("id28_id20_0008", "id3_id28_0001"):
            place = root / "DFDM" / "DFDM_crf23" / model / "frames" / f"{name}_{tag}"
            write_image(place / "000.png", 0, 8)
    for name in ("id28_0008", "id3_0001", "id3_0002"):
        write_image(root / "Celeb-real" / "frames" / name / "000.png", 0, 8)
    return root / "DFDM"


def test_a_fake_is_made_from_the_clip_of_its_target(tmp_path: Path) -> None:
    root = tree(tmp_path)
    entries = dfdm.scan(root, reals=str(tmp_path / "Celeb-real"))
    table = from_entries(entries, root).validate().table
    assert dict(table.filter(label=1).select("video", "pair").rows()) == {
        f"dfdm/{model}/crf23/{name}_{tag}": f"dfdm/real/{real}"
        for model, tag in (("DFaker", "4dfaker"), ("DFL-H128", "2dfl-h128"))
        for name, real in (("id28_id20_0008", "id28_0008"), ("id3_id28_0001", "id3_0001"))
    }
    assert table.filter(label=0).height == 3
    assert set(table["split"]) == {"test"}


def test_persons_are_held_out_whole(tmp_path: Path) -> None:
    root = tree(tmp_path)
    entries = dfdm.scan(root, reals=[str(tmp_path / "Celeb-real")], split="train")
    held = from_entries(entries, root).validate().hold_out(0.5)
    persons = {
        split: set(held.where(split=split).table["video"].str.extract(r"/(id\d+)_[^/]*$"))
        for split in ("train", "val")
    }
    assert sorted(map(len, persons.values())) == [1, 1]
    assert persons["train"] != persons["val"]


def test_fakes_without_a_pair_are_counted(tmp_path: Path) -> None:
    root = tree(tmp_path)
    place = root / "DFDM_crf23" / "DFaker" / "frames"
    for name in ("id28_id20_4dfaker", "other"):
        write_image(place / name / "000.png", 0, 8)
    entries = dfdm.scan(root, reals=str(tmp_path / "Celeb-real"))
    told = [str(entry) for entry in entries if isinstance(entry, Problem)]
    assert len(told) == 1
    assert "The names of 2 fakes of dfdm do not tell what real video" in told[0]


def test_a_folder_above_the_real_videos_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with pytest.raises(InputError, match="the folder in which the videos themselves lie") as told:
        list(dfdm.scan(root, reals=[str(tmp_path)]))
    assert f"{tmp_path} of data.source.reals holds no videos" in str(told.value)


def test_what_lacks_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with pytest.raises(InputError, match=r"Celeb-real of Celeb-DF v2 as data\.source\.reals"):
        list(dfdm.scan(root))
    with pytest.raises(InputError, match=r"There is no folder .*DFDM_crf0"):
        list(dfdm.scan(root, compression="crf0", reals=[]))
