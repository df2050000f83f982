"""SynthForensics against a generated copy, with the real videos of other datasets."""

from pathlib import Path

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data import split_lists
from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.data.sources import synthforensics
from fmsd.errors import InputError
from tests.conftest import write_image

OFFICIAL = split_lists.split_by_name(split_lists.FFPP)
NAMES = {
    split: min(name for name, part in OFFICIAL.items() if part == split and "_" not in name)
    for split in ("train", "val", "test")
}
SCENE = "01__exit_phone_room"


def tree(root: Path) -> Path:
    """Two generators, with frames of each video; the real videos lie in two other copies."""
    for condition, generator in (("T2V", "cogvideox"), ("T2V", "wan2-1"), ("I2V", "cogvideox")):
        for name in (*NAMES.values(), SCENE):
            stem = f"{name}_{generator}_{condition.lower()}" if generator != "wan2-1" else name
            place = root / "sf" / condition / "videos" / "crf23" / generator / "frames" / stem
            write_image(place / "000.png", 0, 8)
    for name in NAMES.values():
        write_image(root / "youtube" / "c23" / "frames" / name / "000.png", 0, 8)
    write_image(root / "actors" / "c23" / "frames" / SCENE / "000.png", 0, 8)
    return root / "sf"


def scanned(root: Path, **options: object) -> Manifest:
    reals = [str(root / "youtube/c23"), str(root / "actors/c23")]
    entries = synthforensics.scan(root / "sf", reals=reals, **options)  # pyright: ignore[reportArgumentType]
    return from_entries(entries, root / "sf").validate()


def test_a_video_has_the_split_of_its_real_one_which_is_its_pair(tmp_path: Path) -> None:
    tree(tmp_path)
    table = scanned(tmp_path).table
    assert set(table["domain"]) == {"real", "cogvideox_t2v", "wan2-1_t2v", "cogvideox_i2v"}
    fakes = table.filter(label=1)
    assert set(fakes["pair"]) == set(table.filter(label=0)["video"])
    splits = fakes.join(table.filter(label=0), left_on="pair", right_on="video")
    assert (splits["split"] == splits["split_right"]).all()
    assert dict(
        table.filter(label=0).select(pl.col("video").str.split("/").list.last(), "split").rows()
    ) == {name: split for split, name in NAMES.items()} | {SCENE: "test"}
    assert "synthforensics/cogvideox_t2v/crf23/" + NAMES["test"] + "_cogvideox_t2v" in set(
        table["video"]
    )


@pytest.mark.parametrize(
    ("generator", "end"), [("wan2_1", "_wan2_1_t2v"), ("helios", "_helios_T2V"), ("X_y", "")]
)
def test_the_generator_in_a_name_is_that_of_the_folder(
    tmp_path: Path, generator: str, end: str
) -> None:
    tree(tmp_path)
    place = tmp_path / "sf/T2V/videos/crf23" / generator / "frames"
    for name in (NAMES["train"], SCENE):
        write_image(place / f"{name}{end}" / "000.png", 0, 8)
    table = scanned(tmp_path).table.filter(domain=f"{generator}_t2v")
    assert set(table.select("split", "pair").rows()) == {
        ("train", f"synthforensics/real/{NAMES['train']}"),
        ("test", f"synthforensics/real/{SCENE}"),
    }


@pytest.mark.parametrize(
    "place", ["sf/T2V/videos/crf23/wan2-1/frames", "youtube/c23/frames", "actors/c23/frames"]
)
@pytest.mark.parametrize("end", ["_helios_t2v", "_c23", "_097"])
def test_a_name_that_does_not_tell_the_split_is_refused(
    tmp_path: Path, place: str, end: str
) -> None:
    tree(tmp_path)
    name = f"{NAMES['train']}{end}"
    write_image(tmp_path / place / name / "000.png", 0, 8)
    with pytest.raises(InputError, match=rf"video {name} of .* named after none .* split is not"):
        scanned(tmp_path)
    entries = synthforensics.scan(tmp_path / "sf", split="test", reals=[])
    told = [str(entry) for entry in entries if isinstance(entry, Problem)]
    assert [f"such as {name}" in text for text in told] == [True] * place.startswith("sf")


def test_all_videos_are_tested_where_asked_for(tmp_path: Path) -> None:
    tree(tmp_path)
    assert set(scanned(tmp_path, split="test").table["split"]) == {"test"}
    with pytest.raises(InputError, match=r"split=all is no split.*ff\+\+"):
        scanned(tmp_path, split="all")


def test_without_real_videos_it_is_refused_and_the_command_line_takes_them(tmp_path: Path) -> None:
    out, root = tmp_path / "m.parquet", tree(tmp_path)
    with pytest.raises(InputError, match="published without real videos"):
        list(synthforensics.scan(root))
    reals = f"data.source.reals=[{tmp_path}/youtube/c23,{tmp_path}/actors/c23]"
    assert main(["index", "data=synthforensics", f"data.root={root}", f"out={out}", reals]) == 0
    assert read_manifest(out, root).videos == 12 + 4
    fakes = from_entries(synthforensics.scan(root, reals=[]), root).validate()
    assert set(fakes.table["label"]) == {1}


def test_empty_folders_of_real_videos_give_way_to_those_with_frames(tmp_path: Path) -> None:
    tree(tmp_path)
    whole = scanned(tmp_path).table
    (tmp_path / "actors/c23/frames" / NAMES["test"]).mkdir()
    (tmp_path / "youtube/c23/frames" / SCENE).mkdir()
    assert scanned(tmp_path).table.equals(whole)


def test_real_videos_that_lack_are_told_and_versions_that_lack_refused(tmp_path: Path) -> None:
    root = tree(tmp_path)
    entries = list(synthforensics.scan(root, reals=[str(tmp_path / "youtube/c23")]))
    problems = [str(entry) for entry in entries if isinstance(entry, Problem)]
    assert any(
        f"lack 1 videos that fakes of synthforensics were made from, such as {SCENE}" in text
        for text in problems
    )
    for options, message in (
        ({"compression": "crf40"}, r"holds no folder .*videos/crf40/GENERATOR"),
        ({"conditions": ["T2I"]}, "has no condition T2I"),
        ({"reals": [str(tmp_path / "gone")]}, "There is no folder .*gone with real videos"),
        (
            {"reals": [str(tmp_path / "youtube/c23"), str(root / "T2V/videos/crf23/wan2-1")]},
            "are one video",
        ),
    ):
        with pytest.raises(InputError, match=message):
            list(synthforensics.scan(root, **{"reals": [], **options}))  # pyright: ignore[reportArgumentType]
