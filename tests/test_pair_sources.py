"""The real video of a fake: by the sources that know it, and through what stores a manifest."""

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data.entries import from_entries
from fmsd.data.extraction.faces import YuNet
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.frame import LATER_COLUMNS, REAL, Entry, Frame
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.data.selected_frames import list_frames
from fmsd.data.selection import Selection
from fmsd.data.sources import (
    celebdf,
    deeperforensics,
    deepfakebench,
    dfd,
    dfdc,
    fakeavceleb,
    ffpp,
    table,
    uadfv,
)
from fmsd.errors import InputError
from fmsd.tasks.extract import extract
from fmsd.tasks.pack import pack
from tests import (
    test_celebdf,
    test_deeperforensics,
    test_deepfakebench,
    test_dfd,
    test_dfdc,
    test_fakeavceleb,
    test_ffpp,
    test_uadfv,
)
from tests.conftest import write_image
from tests.films import film, walk

Scan = Callable[[Path], Iterable[Entry]]


def celebdf_copy(root: Path) -> Iterable[Entry]:
    test_celebdf.copy(root, test_celebdf.V2, test_celebdf.V2_TESTED, videos=False)
    return celebdf.scan(root, "celebdf")


def celebdf_pp_copy(root: Path) -> Iterable[Entry]:
    fakes = {"Celeb-synthesis/FaceSwap/Celeb-DF-v2": ("id0_id1_0000", "id1_id0_0000")}
    test_celebdf.copy(root, fakes, test_celebdf.TESTED, videos=False)
    return celebdf.scan_pp(root, "celebdf_pp")


def both_reals_copy(root: Path) -> Iterable[Entry]:
    """A copy with a real video of one name in both folders, which the ids tell apart."""
    celebdf_copy(root)
    write_image(root / "YouTube-real/id0_0000/000.png", 3, 8)
    return celebdf.scan(root, "celebdf")


def benchmark_copy(root: Path) -> Iterable[Entry]:
    test_deepfakebench.benchmark(root)
    for name in ("FaceForensics++.json", "Celeb-DF-v2.json"):
        for entry in deepfakebench.scan(root, name, compression="c23"):
            if not (isinstance(entry, Frame) and entry.video.endswith("/003_000")):
                yield entry


COPIES: dict[str, Scan] = {
    "ff++": lambda root: ffpp.scan(test_ffpp.ffpp_tree(root)),
    "dfd": lambda root: dfd.scan(test_dfd.extract(test_dfd.tree(root))),
    "celebdf": celebdf_copy,
    "celebdf_pp": celebdf_pp_copy,
    "names in both real folders": both_reals_copy,
    "dfdc": lambda root: dfdc.scan(test_dfdc.copy(root, frames="frames"), "dfdc"),
    "fakeavceleb": lambda root: fakeavceleb.scan(test_fakeavceleb.tree(root)),
    "uadfv": lambda root: uadfv.scan(test_uadfv.extracted(root), "uadfv"),
    "deeperforensics": lambda root: deeperforensics.scan(
        test_deeperforensics.real_tree(test_deeperforensics.tree(root))
    ),
    "deepfakebench": benchmark_copy,
}


@pytest.mark.parametrize("name", COPIES)
def test_in_a_whole_copy_every_fake_has_its_real_video(name: str, tmp_path: Path) -> None:
    manifest = from_entries(COPIES[name](tmp_path), tmp_path).validate()
    listed = manifest.table
    real = set(listed.filter(label=0)["video"])
    fakes = listed.filter(label=1)
    if name == "dfdc":  # labels.csv and the test set's list have no originals
        assert set(fakes.filter(pl.col("split") != "train")["pair"]) == {""}
        fakes = fakes.filter(split="train")
    assert fakes.height
    assert set(fakes["pair"]) <= real
    assert set(listed.filter(label=0)["pair"]) == {""}


@pytest.mark.parametrize(
    ("name", "fake", "real"),
    [
        ("ff++", "ff++/NeuralTextures/c23/071_054", "ff++/real/c23/071"),
        (
            "dfd",
            "dfd/DeepFakeDetection/c23/02_01__kitchen_pan__6TI5VHMZ",
            "dfd/real/c23/02__kitchen_pan",
        ),
        ("celebdf", "celebdf/Celeb-synthesis/id1_id0_0000", "celebdf/real/id1_0000"),
        (
            "names in both real folders",
            "celebdf/Celeb-synthesis/id0_id1_0000",
            "celebdf/real/Celeb-real/id0_0000",
        ),
        ("dfdc", "dfdc/fake/aaqaifqrwn", "dfdc/real/afoovlsmtx"),
        (
            "fakeavceleb",
            "fakeavceleb/wav2lip/FakeVideo-FakeAudio/Asian (East)/men/id00056_00109_0_wavtolip",
            "fakeavceleb/real/RealVideo-RealAudio/Asian (East)/men/id00056_00109",
        ),
        ("uadfv", "uadfv/fake/0001_fake", "uadfv/real/0001"),
        (
            "deeperforensics",
            "deeperforensics/end_to_end/974_M004",
            "deeperforensics/real/c23/974",
        ),
        (
            "deepfakebench",
            "FaceForensics++/Deepfakes/c23/071_054",
            "FaceForensics++/real/c23/071",
        ),
    ],
)
def test_the_real_video_is_the_one_whose_frames_were_altered(
    name: str, fake: str, real: str, tmp_path: Path
) -> None:
    manifest = from_entries(COPIES[name](tmp_path), tmp_path)
    assert set(manifest.table.filter(video=fake)["pair"]) == {real}


def test_names_of_another_form_give_no_pair(tmp_path: Path) -> None:
    """The methods that Celeb-DF++ adds have the names of v2's fakes, but no documented meaning."""
    test_celebdf.copy(tmp_path, test_celebdf.PP, test_celebdf.PP_TESTED, videos=False)
    manifest = from_entries(celebdf.scan_pp(tmp_path, "celebdf_pp"), tmp_path)
    assert set(manifest.table["pair"]) == {""}
    odd = tmp_path / "odd"
    for folder, name in (("real", "0000"), ("fake", "0000_fake"), ("fake", "other")):
        write_image(odd / folder / "frames" / name / "000.png", 0, 8)
    manifest = from_entries(uadfv.scan(odd, "uadfv"), odd)
    assert dict(manifest.table.filter(label=1).select("video", "pair").rows()) == {
        "uadfv/fake/0000_fake": "uadfv/real/0000",
        "uadfv/fake/other": "",
    }


def test_a_partner_that_a_copy_lacks_stays_the_pair(tmp_path: Path) -> None:
    root = test_dfdc.copy(tmp_path, frames="frames")
    path = root / "train/dfdc_train_part_0/metadata.json"
    listed = json.loads(path.read_text())
    listed["aaqaifqrwn.mp4"]["original"] = "elsewhere.mp4"
    path.write_text(json.dumps(listed))
    manifest = from_entries(dfdc.scan(root, "dfdc"), root).validate()
    fake = manifest.table.filter(video="dfdc/fake/aaqaifqrwn")
    assert set(fake["pair"]) == {"dfdc/real/elsewhere"}
    listed["aaqaifqrwn.mp4"]["original"] = 7
    path.write_text(json.dumps(listed))
    with pytest.raises(InputError, match=r"aaqaifqrwn\.mp4 / original in .* is a number, not text"):
        list(dfdc.scan(root, "dfdc"))


def test_dfdc_parts_with_videos_of_equal_names_have_originals_of_their_own(tmp_path: Path) -> None:
    listed = {
        "fake.mp4": {"label": "FAKE", "split": "train", "original": "real.mp4"},
        "real.mp4": {"label": "REAL", "split": "train"},
    }
    for name in ("one", "two"):
        folder = test_dfdc.part(tmp_path / "train" / name, list(listed), "frames")
        (folder / "metadata.json").write_text(json.dumps(listed))
    manifest = from_entries(dfdc.scan(tmp_path, "dfdc"), tmp_path).validate()
    assert dict(manifest.table.filter(label=1).select("video", "pair").rows()) == {
        f"dfdc/fake/train/{name}/fake": f"dfdc/real/train/{name}/real" for name in ("one", "two")
    }


def test_a_person_of_fakeavceleb_with_two_real_videos_gives_no_pair(tmp_path: Path) -> None:
    second = ("id00076", "real", "A", "RealVideo-RealAudio", "African", "00110")
    root = test_fakeavceleb.tree(tmp_path, [*test_fakeavceleb.ROWS, second])
    manifest = from_entries(fakeavceleb.scan(root), root)
    pairs = dict(manifest.table.filter(label=1).select("video", "pair").rows())
    assert {pair for video, pair in pairs.items() if "id00076" in video} == {""}
    assert any(pair.endswith("id00056_00109") for pair in pairs.values())


def described(root: Path, **changes: Any) -> Manifest:
    """The manifest of a table with a real and a fake video of two frames."""
    columns: dict[str, Any] = {
        "path": [f"{name}/{index}.png" for name in ("r", "f") for index in (0, 1)],
        "label": [0, 0, 1, 1],
        "dataset": "d",
        "domain": [REAL, REAL, "swap", "swap"],
        "video": ["d/r", "d/r", "d/f", "d/f"],
        "index": [0, 1, 0, 1],
        "split": "train",
        "pair": ["", "", "d/r", "d/r"],
    }
    listed = pl.DataFrame(columns | changes)
    for path in listed["path"]:
        write_image(root / path, 0, 8)
    listed.write_csv(root / "manifest.csv")
    return from_entries(table.scan(root, "manifest.csv"), root)


def test_a_table_may_have_a_column_of_pairs(tmp_path: Path) -> None:
    manifest = described(tmp_path).validate()
    assert manifest.table["pair"].to_list() == ["d/r", "d/r", "", ""]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["d/r", "", "d/r", "d/r"], r"pair values of row 2 .* are those of real frames"),
        (["", "", "d/r", ""], r"pair values of row 0 .* differ within a video"),
        (["", "", "d/../r", "d/../r"], r"holds the part '\.\.'"),
    ],
)
def test_pairs_that_cannot_be_are_refused(tmp_path: Path, pairs: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        described(tmp_path, pair=pairs).validate()


def test_a_manifest_of_an_earlier_version_is_read_without_pairs(tmp_path: Path) -> None:
    manifest = described(tmp_path)
    manifest.write(tmp_path / "new.parquet")
    assert read_manifest(tmp_path / "new.parquet", tmp_path).table.equals(manifest.table)
    manifest.table.drop(LATER_COLUMNS).write_parquet(tmp_path / "old.parquet")
    old = read_manifest(tmp_path / "old.parquet", tmp_path).validate()
    assert old.table["pair"].to_list() == [""] * 4
    assert old.table.columns == manifest.table.columns


def test_the_digest_is_that_of_earlier_versions_with_and_without_pairs(tmp_path: Path) -> None:
    manifest = described(tmp_path)
    assert manifest.digest() == DIGEST
    without = described(tmp_path, pair="")
    assert without.digest() == DIGEST
    assert without.pairs_digest() != manifest.pairs_digest()


DIGEST = "a87f2022c0a604e274bfcd682edd784bb4cc09bf465dfea48431147c9edcd93c"
"""The digest that fmsd 0.1.0 computes for `described`."""


def test_index_replaces_a_manifest_of_an_earlier_version(tmp_path: Path) -> None:
    described(tmp_path).table.drop(LATER_COLUMNS).write_parquet(tmp_path / "m.parquet")
    words = ["index", "data=table", f"data.root={tmp_path}", f"out={tmp_path}/m.parquet"]
    assert main(words) == 0
    assert set(read_manifest(tmp_path / "m.parquet", tmp_path).table["pair"]) == {"", "d/r"}


def video_table(root: Path, **changes: Any) -> Selection:
    """A real and a fake video file in a table."""
    for number, name in enumerate(("r", "f")):
        if not (root / f"{name}.mp4").exists():
            film(root / f"{name}.mp4", walk(4, seed=number))
    pl.DataFrame(
        {
            "path": ["r.mp4", "f.mp4"],
            "label": [0, 1],
            "dataset": "d",
            "domain": [REAL, "swap"],
            "video": ["d/r", "d/f"],
            "index": 0,
            "split": "test",
            "pair": ["", "d/r"],
        }
        | changes
    ).write_csv(root / "manifest.csv")
    scan = functools.partial(table.scan, file="manifest.csv")
    return Selection("d", str(root), scan, train=["d"], test=["d"])


def crops(out: Path, **changes: Any) -> Selection:
    return Selection("d", str(out), lambda root: [], train=["d"], test=["d"], **changes)


def test_crops_and_packs_have_the_pairs_of_their_videos(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    out, packed = tmp_path / "crops", tmp_path / "packed"
    extract(video_table(tmp_path / "videos"), YuNet, Recipe(frames=2, size=32), out)
    pairs = {"d/r": "", "d/f": "d/r"}
    listed = list_frames(crops(out))
    assert dict(listed.table.select("video", "pair").rows()) == pairs
    pack(crops(out), packed, "1G")
    assert list_frames(crops(packed)).table.equals(listed.table)


def test_extracting_again_adds_pairs_to_crops_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    data, out = video_table(tmp_path / "videos"), tmp_path / "crops"
    extract(data, YuNet, Recipe(frames=2, size=32), out)
    expected = list_frames(crops(out)).table
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    for path in out.rglob("video.json"):
        record = json.loads(path.read_text())
        del record["pair"]
        path.write_text(json.dumps(record))
    old = pl.read_parquet(out / "manifest.parquet").drop("pair")
    old.write_parquet(out / "manifest.parquet")
    assert set(list_frames(crops(out)).table["pair"]) == {""}
    extract(data, YuNet, Recipe(frames=2, size=32), out)
    assert list_frames(crops(out)).table.equals(expected)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == times
