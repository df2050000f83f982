"""Which frames train, validate and test."""

import logging
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame
from fmsd.data.manifest import Manifest
from fmsd.data.selected_frames import (
    list_frames,
    load_test_datasets,
    load_training_splits,
    skipped_datasets,
)
from fmsd.data.selection import Selection
from fmsd.data.sources import folder
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from tests.conftest import grow_tree, write_image
from tests.test_engine import SPLITS, module, selection


def loaded_tests(rules: Selection) -> dict[str, Manifest]:
    return load_test_datasets(rules, list_frames(rules))


def test_splits_do_not_mix(tree: Path) -> None:
    data = module(tree)
    parts = [
        data.splits.train,
        data.splits.validation,
        data.tests["mine"],
    ]
    videos = [set(part.table["video"]) for part in parts]
    assert [len(part) for part in videos] == [4, 4, 4]
    assert len(set.union(*videos)) == 12


def test_a_selection_is_frozen_and_reads_nothing(tmp_path: Path) -> None:
    rules = selection(tmp_path / "nowhere")
    with pytest.raises(FrozenInstanceError):
        rules.frames = 8  # pyright: ignore[reportAttributeAccessIssue]
    assert replace(rules, frames=8).frames_to_train == 8


def test_each_part_is_loaded_alone_by_one_scan(tree: Path) -> None:
    scans: list[Path] = []

    def source(root: Path) -> Iterator[Frame]:
        scans.append(root)
        return folder.scan(root, "mine", "{split}/{domain}/{video}", SPLITS, ["real"])  # pyright: ignore

    tested = DataModule(selection(tree, source=source, train=[]), size=32, workers=0)
    assert not scans
    tested.load("tests")
    assert (len(scans), list(tested.tests)) == (1, ["mine"])
    assert not hasattr(tested, "splits")
    searched = DataModule(selection(tree, source=source, test=[]), size=32, workers=0)
    searched.load("validation")
    assert len(searched.splits.validation) == 8
    assert (len(scans), hasattr(searched, "tests")) == (2, False)


def test_without_a_validation_split_training_videos_are_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = grow_tree(tmp_path, splits=("train", "test"), videos=4)
    with caplog.at_level(logging.INFO, "fmsd"):
        data = module(root, val_fraction=0.25)
        assert data.splits.validation.videos == 2
    assert "25 % of its training videos are held out" in caplog.text
    assert not set(data.splits.validation.table["video"]) & set(data.splits.train.table["video"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": None}, r"data=mine has no root; give the dataset's folder as data\.root=PATH"),
        ({"train": ["yours"]}, r"data\.train names yours, but data=mine holds mine"),
        ({"test": ["yours"]}, r"data\.test names yours, which data=mine does not hold"),
        ({"splits": ("train", "val")}, r"dataset mine has no test split"),
        ({"domains": ("real",)}, r"train split of mine has only real frames"),
        ({"frames": 0}, r"data\.frames=0 is out of range; give at least 1, or null for all"),
        ({"batch_size": 0}, r"data\.batch_size=0 is out of range; give at least 1"),
        (
            {"val_fraction": 1.5},
            r"data\.val_fraction=1\.5 is no share; give a number between 0 and 1",
        ),
        (
            {"batches": "mixed"},
            r"data\.batches=mixed is unknown; choose one of shuffle, shards, balanced, natural, "
            r"pairs, balanced_pairs, natural_pairs",
        ),
    ],
)
def test_data_that_cannot_be_used_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = grow_tree(
        tmp_path, **{name: changes.pop(name) for name in ("splits", "domains") if name in changes}
    )
    with pytest.raises(InputError, match=message):
        module(changes.pop("root", root), **changes)


def test_a_test_split_with_one_class_is_refused(tmp_path: Path) -> None:
    root = grow_tree(tmp_path, splits=("train", "val"))
    write_image(root / "test" / "swap" / "v" / "0.png", 0)
    with pytest.raises(
        InputError, match=r"test split of mine has only fake frames, so no AUC exists"
    ):
        loaded_tests(selection(root))


def test_test_datasets_elsewhere_are_read_or_skipped_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def other(root: Path) -> Iterator[Frame]:
        return folder.scan(root, "other", "{split}/{domain}/{video}", SPLITS, ["real"])  # pyright: ignore

    home, away = grow_tree(tmp_path / "home"), grow_tree(tmp_path / "away")
    data = selection(
        home,
        test=["mine", "other", "third"],
        others={"other": other, "third": other},
        roots={"other": str(away), "third": None},
    )
    with caplog.at_level(logging.WARNING, "fmsd"):
        assert list(loaded_tests(data)) == ["mine", "other"]
    assert "third is skipped: it has no root (data.roots.third=PATH)" in caplog.text
    assert skipped_datasets(data, list_frames(data)) == ["third"]
    alias = selection(home, test=["alias"], others={"alias": other}, roots={"alias": str(away)})
    with pytest.raises(
        InputError,
        match=r"away holds other, not alias; "
        r"correct data\.roots\.alias=PATH, or the name in conf/data/alias\.yaml",
    ):
        loaded_tests(alias)


def in_compressions(root: Path, dataset: str, *levels: str) -> Iterator[Frame]:
    """The frames below ROOT/LEVEL of a dataset, in each of some compressions."""
    for level in levels:
        for frame in folder.scan(
            root / level, dataset, "{split}/{domain}/{video}", SPLITS, ["real"]
        ):  # pyright: ignore
            yield replace(frame, compression=level, video=f"{frame.video}/{level}")


def test_of_several_compressions_one_has_to_be_named(tmp_path: Path) -> None:
    for level in ("c23", "c40"):
        grow_tree(tmp_path / "home" / level)

    def data(**changes: Any) -> Selection:
        return selection(
            tmp_path / "home",
            source=lambda root: in_compressions(root, "mine", "c23", "c40"),
            **changes,
        )

    assert set(list_frames(data()).table["compression"]) == {
        "c23",
        "c40",
    }  # a source that yields both was asked for both
    crops = tmp_path / "crops"
    from_entries(in_compressions(tmp_path / "home", "mine", "c23", "c40"), tmp_path / "home").write(
        crops / "manifest.parquet"
    )
    (crops / "extract.json").write_text('{"frames": null, "sampling": "spread"}')
    with pytest.raises(
        InputError,
        match=r"crops holds mine in the compressions c23, c40; "
        r"choose one with data\.compression=NAME, or all",
    ):
        list_frames(selection(crops))
    assert set(list_frames(selection(crops, compression="all")).table["compression"]) == {
        "c23",
        "c40",
    }
    with pytest.raises(
        InputError, match=r"data\.compression=raw is asked for, but .*home holds mine in c23, c40"
    ):
        list_frames(data(compression="raw"))
    chosen = data(compression="c40")
    tested, trained = (
        loaded_tests(chosen)["mine"],
        load_training_splits(chosen, list_frames(chosen)),
    )
    for manifest in (trained.train, trained.validation, tested):
        assert set(manifest.table["compression"]) == {"c40"}
    assert tested.digest() != loaded_tests(data(compression="c23"))["mine"].digest()
    elsewhere = {
        "others": {"other": lambda root: in_compressions(root, "other", "c23", "c40")},
        "roots": {"other": str(tmp_path / "home")},
    }
    home = grow_tree(tmp_path / "plain")
    read = loaded_tests(selection(home, test=["mine", "other"], compression="c23", **elsewhere))
    assert {name: set(test.table["compression"]) for name, test in read.items()} == {
        "mine": {""},
        "other": {"c23"},
    }


def test_a_file_that_is_trained_and_tested_on_is_refused(tree: Path) -> None:
    def same(root: Path) -> Iterator[Frame]:
        for frame in folder.scan(root, "other", "{split}/{domain}/{video}", SPLITS, ["real"]):  # pyright: ignore
            yield replace(frame, split="test")

    with pytest.raises(InputError, match=r"is a training and a test frame of other"):
        loaded_tests(
            selection(tree, test=["other"], others={"other": same}, roots={"other": str(tree)})
        )


def test_a_manifest_takes_the_place_of_a_scan(tree: Path, tmp_path: Path) -> None:
    scanned = selection(tree)
    list_frames(scanned).write(tmp_path / "manifest.parquet")

    def never(root: Path) -> Iterator[Frame]:
        raise AssertionError(f"{root} was scanned")

    read = Selection(
        "mine",
        str(tree),
        never,
        ["mine"],
        ["mine"],
        manifest=str(tmp_path / "manifest.parquet"),
    )
    assert loaded_tests(read)["mine"].digest() == loaded_tests(scanned)["mine"].digest()
