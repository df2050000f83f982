"""Copies as they are distributed, and the findings of the source that reads them."""

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from fmsd.cli.main import main
from fmsd.data.selected_frames import list_frames
from fmsd.data.selection import Selection
from fmsd.errors import InputError
from fmsd.tasks.doctor import doctor
from fmsd.tasks.train import copy_summary
from tests import test_celebdf as celeb_trees
from tests import test_deeperforensics as deeper_trees
from tests import test_dfd as dfd_trees
from tests import test_ffpp as forensics_trees
from tests import test_wilddeepfake as wild_trees
from tests.copies import (
    FFPP,
    LISTED,
    ONE,
    SPLITS,
    TREE,
    clean_copy,
    examined,
    forensics,
    module,
    noise,
    rewritten,
    write,
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return clean_copy(tmp_path / "copy")


def test_only_the_datasets_that_the_data_names_are_examined(copy: Path, tmp_path: Path) -> None:
    rewritten(
        copy,
        lambda rows: rows.with_columns(
            dataset=pl.when(pl.col("split") == "test")
            .then(pl.lit("other"))
            .otherwise(pl.lit("mine"))
        ),
    )
    (copy / "test/real/testa/0.jpg").unlink()
    data = module(copy, LISTED)
    assert set(examined(data, tmp_path)["findings"]) == {"missing files"}
    data = replace(data, test=["mine"])
    assert examined(data, tmp_path)["findings"] == {}
    data = replace(data, train=["mien"])
    report = examined(data, tmp_path)
    assert {
        check: (one["severity"], one["examples"]) for check, one in report["findings"].items()
    } == {"for testing only": ("note", [f"{copy} holds mine, other, not mien of data.train"])}
    data = replace(data, test=["mien", "celebdf_v2"], others={"celebdf_v2": TREE})
    refused = examined(data, tmp_path)["findings"]["refused"]
    assert refused["examples"] == [f"{copy} holds mine, other, not mien"]
    assert (
        refused["remedy"]
        == "correct data.root, or name what it holds in data.train=[...] and data.test=[...]"
    )


COPIES: dict[str, Callable[[Path], object]] = {
    "ff++": forensics_trees.ffpp_tree,
    "celebdf_v2": lambda root: celeb_trees.copy(
        root, celeb_trees.V2, celeb_trees.V2_TESTED, videos=False
    ),
    "dfd": lambda root: dfd_trees.extract(dfd_trees.tree(root)),
    "deeperforensics": lambda root: deeper_trees.real_tree(deeper_trees.tree(root)),
    "wilddeepfake": wild_trees.tree,
}


@pytest.mark.parametrize("name", COPIES)
def test_nothing_is_fatal_in_a_clean_copy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    COPIES[name](root)
    for archive in root.rglob("*.tar.gz"):
        archive.unlink()
    for file in root.rglob("*.mp4"):
        file.unlink()
    for number, image in enumerate(sorted(root.rglob("*.png"))):
        Image.fromarray(noise(number)).save(image)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fmsd"])
    monkeypatch.delenv("FMSD_FFPP", raising=False)
    assert (
        main(["doctor", f"data={name}", f"data.root={root}", "workers=0", "out=report.json"]) == 0
    )
    report = json.loads((tmp_path / "report.json").read_text())
    found = {finding["check"]: finding for finding in report["findings"]}
    assert report["opened"] == report["files"] > 0
    shared = [
        example.partition(" ")[0]
        for example in found.get("person in several splits", {"examples": []})["examples"]
    ]
    assert shared == {"celebdf_v2": ["id0", "id1"], "deeperforensics": ["953"]}.get(name, [])


def test_a_copy_that_its_source_refuses_is_examined_as_far_as_it_was_read(
    copy: Path, tmp_path: Path
) -> None:
    write(copy / "zoo" / "real" / "lion" / "0.jpg", noise(0))
    (copy / ONE).write_bytes(b"")
    report = examined(module(copy, TREE), tmp_path)
    assert set(report["findings"]) == {"refused", "empty files"}
    assert "is in no known split" in report["findings"]["refused"]["examples"][0]
    assert report["findings"]["refused"]["remedy"].startswith("add it with")
    nothing = examined(module(tmp_path / "none", TREE), tmp_path)
    assert set(nothing["findings"]) == {"refused"}
    assert nothing["counts"] == []
    with pytest.raises(InputError, match="has no root"):
        doctor(Selection("mine", None, TREE, [], []), tmp_path / "report.json")


WHOLE = {split: {"real": 2, "Deepfakes": 2} for split in SPLITS}


def test_what_the_source_says_and_whole_copies_are_compared(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    assert (
        examined(module(root, FFPP, "few", expected=WHOLE, names="sources"), tmp_path)["findings"]
        == {}
    )
    frames = root / "manipulated_sequences/Deepfakes/c23/frames"
    shutil.rmtree(frames / "000_001")
    (frames / "004_005").rename(frames / "777")
    report = examined(module(root, FFPP, "few", expected=WHOLE, names="sources"), tmp_path)
    assert {
        check: finding["severity"] for check, finding in report["findings"].items()
    } == dict.fromkeys(("missing", "unlisted", "fewer videos than a whole copy"), "warning")
    assert "lists 000_001" in " ".join(report["findings"]["missing"]["examples"])
    assert report["findings"]["missing"]["remedy"] == "complete the copy"
    assert report["findings"]["fewer videos than a whole copy"]["examples"] == [
        "Deepfakes train 1 of 2",
        "Deepfakes test 1 of 2",
    ]
    shutil.rmtree(frames / "002_003")
    shutil.rmtree(frames / "003_002")
    report = examined(module(root, FFPP, "few", expected=WHOLE, names="sources"), tmp_path)
    absent = report["findings"]["parts without a video"]
    assert (absent["severity"], absent["examples"]) == ("fatal", ["Deepfakes val 0 of 2"])


def test_a_domain_whose_name_is_part_of_a_path_is_not_taken_for_missing(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    shutil.rmtree(root / "original_sequences/youtube/c23/frames/000")
    whole = {"train": {"real": 2, "Deepfakes": 2, "youtube": 5, "a": 5}}
    findings = examined(module(root, FFPP, "few", expected=whole), tmp_path)["findings"]
    assert "/youtube/" in findings["missing"]["examples"][0]
    left_out = findings["domains that are not there"]
    assert (left_out["severity"], left_out["examples"]) == (
        "note",
        ["youtube train 0 of 5", "a train 0 of 5"],
    )
    assert "parts without a video" not in findings


def test_folders_without_frames_are_left_out_and_told(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    for image in (root / "original_sequences/youtube/c23/frames/000").iterdir():
        image.unlink()
    report = examined(module(root, FFPP), tmp_path)
    assert set(report["findings"]) == {"folders without frames"}
    found = report["findings"]["folders without frames"]
    assert (found["severity"], found["count"]) == ("warning", 1)
    assert found["examples"][0].endswith(
        "original_sequences/youtube/c23/frames/000 holds no frames"
    )


def test_fakes_that_all_lack_frames_are_told_in_a_few_lines(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    for image in (root / "manipulated_sequences").rglob("*.png"):
        image.unlink()
    expected = {split: {"real": 2, "Deepfakes": 2} for split in ("train", "val", "test")}
    source = functools.partial(FFPP.func, manipulations=["Deepfakes"], dataset="mine")
    report = examined(module(root, source, expected=expected), tmp_path)
    assert {
        check: (one["severity"], one["count"]) for check, one in report["findings"].items()
    } == {
        "folders without frames": ("warning", 6),
        "one class only": ("warning", 3),
        "refused": ("fatal", 1),
    }


def test_only_the_dataset_of_the_data_is_compared_with_its_whole_copy(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(
        copy,
        lambda rows: rows.with_columns(
            dataset=pl.when(pl.col("split") == "test")
            .then(pl.lit("other"))
            .otherwise(pl.lit("mine"))
        ),
    )
    data = module(
        copy, LISTED, expected={"train": {"real": 2, "swap": 2}, "all": {"real": 4, "swap": 9}}
    )
    report = examined(data, tmp_path)
    assert {check: one["examples"] for check, one in report["findings"].items()} == {
        "fewer videos than a whole copy": ["swap 4 of 9"]
    }
    rows = {
        (part["dataset"], part["split"], part["domain"]): (part["videos"], part["whole"])
        for part in report["counts"]
    }
    assert rows == {
        **{("mine", "train", domain): (2, 2) for domain in ("real", "swap")},
        **{("mine", "val", domain): (2, None) for domain in ("real", "swap")},
        **{("other", "test", domain): (2, None) for domain in ("real", "swap")},
        ("mine", "all", "real"): (4, 4),
        ("mine", "all", "swap"): (4, 9),
    }
    assert "of a whole copy" in capsys.readouterr().out
    data = replace(data, train=["mine"], test=["other"])
    assert (
        copy_summary(data, list_frames(data))
        == "Data: 1 warning (fewer videos than a whole copy: swap 4 of 9); run fmsd doctor "
        "data=mine for details."
    )
    data = replace(data, train=["other"])
    assert copy_summary(data, list_frames(data)) is None
