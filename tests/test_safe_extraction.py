"""An extraction writes inside its folder alone, replaces nothing that is not its own, and keeps one
label of each clip.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data.extraction import crops
from fmsd.data.extraction.alignment import ARCFACE_POINTS
from fmsd.data.extraction.faces import Face
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.records import is_extracted, read_records
from fmsd.data.extraction.source_videos import group_videos
from fmsd.data.frame import Entry, Frame
from fmsd.data.manifest import read_manifest
from fmsd.data.selection import Selection
from fmsd.data.sources import deepfakebench, extracted, folder, table
from fmsd.errors import InputError
from fmsd.tasks.extract import extract
from tests.conftest import write_image
from tests.films import film, walk

RECIPE = Recipe(frames=2, size=32)


class Centre:
    """Finds one face, in the middle of every image."""

    @property
    def about(self) -> dict[str, Any]:
        return {"name": "centre"}

    def __call__(self, image: np.ndarray) -> list[Face]:
        return [Face((8.0, 8.0, 16.0, 16.0), (8 + 16 * ARCFACE_POINTS).astype(np.float64), 1.0)]


def clip(root: Path, name: str, seed: int = 0) -> Path:
    """A video as a folder of two images."""
    for index in range(2):
        write_image(root / name / f"{index}.png", 10 * seed + index)
    return root / name


def data(root: Path, source: Callable[[Path], Any] | None = None, **changes: Any) -> Selection:
    source = source or functools.partial(
        folder.scan,
        dataset="mine",
        layout="{domain}/{video}",
        splits={},
        real=["real"],
        split="train",
    )
    return Selection(
        **{
            "name": "mine",
            "root": str(root),
            "source": source,
            "train": ["mine"],
            "test": ["mine"],
        }
        | changes
    )


def snapshot(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and ".status" not in path.parts  # holds times
    }


def listed(root: Path, video: str) -> Callable[[Path], list[Entry]]:
    """A source of one video of images with any id."""
    return lambda _: [
        Frame(path, 0, "mine", "real", video, index, "train")
        for index, path in enumerate(sorted(root.glob("*.png")))
    ]


@pytest.mark.parametrize("kind", ["absolute", "climbing", "json"])
def test_source_data_is_never_touched_whatever_the_ids_say(tmp_path: Path, kind: str) -> None:
    """The most natural unique id of a table is the path of the folder itself."""
    root, out = tmp_path / "data", tmp_path / "crops"
    victim = clip(root, "clip")
    (victim / "notes.txt").write_text("years of work")
    video = {"absolute": str(victim), "climbing": "../data/clip", "json": "../../../data/clip"}[
        kind
    ]
    if kind == "json":
        content = {
            "mine": {
                "mine_Real": {
                    "train": {video: {"label": "mine_Real", "frames": ["clip/0.png", "clip/1.png"]}}
                }
            }
        }
        (root / "mine.json").write_text(json.dumps(content))
        source = functools.partial(deepfakebench.scan, file="mine.json")
    else:
        rows = [(f"clip/{n}.png", 0, "mine", "real", video, n, "train") for n in range(2)]
        pl.DataFrame(rows, schema=table.REQUIRED_COLUMNS, orient="row").write_csv(
            root / "table.csv"
        )
        source = functools.partial(table.scan, file="table.csv")
    before = snapshot(root)
    with pytest.raises(InputError, match=r"absolute path|leads to another folder"):
        extract(data(root, source), Centre, RECIPE, out)
    assert snapshot(root) == before
    assert not out.exists()


@pytest.mark.parametrize("link", ["mine", "mine/real", "mine/real/clip", ".work"])
def test_links_in_the_folder_of_crops_lead_nowhere(tmp_path: Path, link: str) -> None:
    root, out, elsewhere = tmp_path / "data", tmp_path / "crops", tmp_path / "elsewhere"
    clip(root, "real/clip")
    extract(data(root), Centre, RECIPE, out)
    shutil.rmtree(out / "mine")
    for part in ("", "mine", "real", "clip"):  # what would be taken for a folder of ours
        (elsewhere / part).mkdir(parents=True, exist_ok=True)
        (elsewhere / part / "thesis.tex").write_text("years")
    (out / link).parent.mkdir(parents=True, exist_ok=True)
    (out / link).symlink_to(elsewhere)
    before = snapshot(elsewhere)
    with pytest.raises(InputError, match=r"leads out of .*crops, to .*elsewhere"):
        extract(data(root), Centre, RECIPE, out)
    assert snapshot(elsewhere) == before


@pytest.mark.parametrize(
    "foreign",
    ["without a record", "beside the crops", "a folder beside the crops", "a file in its place"],
)
def test_a_folder_that_holds_more_than_crops_is_not_replaced(tmp_path: Path, foreign: str) -> None:
    root, out = tmp_path / "data", tmp_path / "crops"
    clip(root, "real/clip")
    extract(data(root), Centre, RECIPE, out)
    place = out / "mine/real/clip"
    if foreign in ("without a record", "a file in its place"):
        shutil.rmtree(place)
    kept = {
        "without a record": place / "a.png",
        "a folder beside the crops": place / "notes" / "a.txt",
        "a file in its place": place,
    }
    note = kept.get(foreign, place / "notes.txt")
    note.parent.mkdir(exist_ok=True, parents=True)
    note.write_text("years")
    write_image(root / "real/clip/0.png", 77)
    os.utime(root / "real/clip/0.png", (1, 1))  # so that it is made again
    before = snapshot(out)
    with pytest.raises(InputError, match=r"fmsd extract wrote|was not written by fmsd extract"):
        extract(data(root), Centre, RECIPE, out)
    assert snapshot(out) == before


def test_crops_of_changed_images_and_damaged_records_are_made_again(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "crops"
    clip(root, "real/clip")
    extract(data(root), Centre, RECIPE, out)
    before = snapshot(out)
    write_image(root / "real/clip/1.png", 77)
    os.utime(root / "real/clip/1.png", (1, 1))
    extract(data(root), Centre, RECIPE, out)
    after = snapshot(out)
    assert after["mine/real/clip/000000.png"] == before["mine/real/clip/000000.png"]
    assert after["mine/real/clip/000001.png"] != before["mine/real/clip/000001.png"]
    (out / "mine/real/clip/video.json").write_text("{")
    extract(data(root), Centre, RECIPE, out)
    assert snapshot(out) == after


@pytest.mark.parametrize(
    "video",
    [
        "manifest.parquet",
        "Extract.json",
        "extract.json/a",
        "failures-mine.csv",
        "a/video.json",
        "video.json/b",
    ],
)
def test_ids_that_are_names_of_our_own_files_are_refused(tmp_path: Path, video: str) -> None:
    with pytest.raises(InputError, match="is the name of a file that fmsd extract writes itself"):
        group_videos(listed(clip(tmp_path, "clip"), video)(tmp_path), [])


def test_videos_whose_folders_would_lie_in_each_other_s_are_refused_also_from_call_to_call(
    tmp_path: Path,
) -> None:
    root, out = tmp_path / "data", tmp_path / "crops"
    images = clip(root, "clip")
    with pytest.raises(InputError, match=r"would lie in that of 'a'"):
        group_videos([*listed(images, "a")(root), *listed(images, "a/b")(root)], [])
    extract(data(root, listed(images, "a/b")), Centre, RECIPE, out)
    before = snapshot(out)
    for video, said in (
        ("a/b/c", "would lie in those of a/b"),
        ("a", r"crops/a is no folder of crops that fmsd extract wrote"),
    ):
        with pytest.raises(InputError, match=said):
            extract(data(root, listed(images, video)), Centre, RECIPE, out)
        assert snapshot(out) == before


def test_crops_of_another_id_in_a_video_s_place_are_not_taken_for_its_own(tmp_path: Path) -> None:
    """As on a file system that does not tell case, or where a folder was moved by hand."""
    images, out = clip(tmp_path, "clip"), tmp_path / "crops"
    (source,) = group_videos(listed(images, "a/clip")(tmp_path), [])
    (tmp_path / "work").mkdir()
    crops.extract_video(source, Centre(), RECIPE, out, tmp_path / "work")
    assert is_extracted(source, out)
    (out / "a/clip").rename(out / "a/Clip")
    (other,) = group_videos(listed(images, "a/Clip")(tmp_path), [])
    with pytest.raises(InputError, match=r"crops/a/Clip holds the crops of a/clip"):
        is_extracted(other, out)


def test_a_name_of_the_data_that_climbs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The data\.name '\.\./\.\.' holds a slash"):
        data(tmp_path, name="../..")


def test_crops_are_not_put_into_a_pack(tmp_path: Path) -> None:
    root, out, packed = tmp_path / "data", tmp_path / "crops", tmp_path / "packed"
    clip(root, "real/clip"), clip(root, "swap/clip", 1)
    extract(data(root), Centre, RECIPE, out)
    assert main(["pack", "data=extracted", f"data.root={out}", f"out={packed}"]) == 0
    before = snapshot(packed)
    with pytest.raises(InputError, match=r"packed holds a pack, whose manifest would be lost"):
        extract(data(root), Centre, RECIPE, packed)
    assert (
        main(["index", "data=extracted", f"data.root={out}", f"out={packed / 'manifest.parquet'}"])
        == 2
    )
    assert snapshot(packed) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"video": "../../x"}, "leads to another folder"),
        ({"dataset": "a/b"}, "holds a slash"),
        ({"video": ["a"]}, "is damaged"),
        (
            {"frames": [{"status": "face", "file": "../../x.png", "index": 0}]},
            "file name '../../x.png' holds a slash",
        ),
        ({"frames": [{"status": "face", "file": "/etc/x.png", "index": 0}]}, "absolute path"),
        ({"frames": ["x"]}, "is damaged"),
    ],
)
def test_records_of_a_downloaded_folder_are_not_trusted(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    clip(tmp_path / "data", "real/clip")
    extract(data(tmp_path / "data"), Centre, RECIPE, tmp_path / "crops")
    path = tmp_path / "crops/mine/real/clip/video.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for read_all in (read_records, extracted.scan):
        with pytest.raises(
            InputError, match=rf"clip/video\.json is damaged.*{said}|clip/video\.json {said}"
        ):
            list(read_all(tmp_path / "crops"))


# ---- corrected labels


def films(root: Path) -> Path:
    """Clips as files: two of each kind, of which swap/b is real in truth."""
    for number, name in enumerate(("real/a", "swap/b", "swap/c")):
        film(root / f"{name}.mp4", walk(2, seed=number))
    return root


def folders(root: Path) -> Path:
    """The same as folders of images, whose images all have the same names."""
    for number, name in enumerate(("real/a", "swap/b", "swap/c")):
        clip(root, name, number)
    return root


def labels(out: Path) -> dict[str, int]:
    table_ = read_manifest(out / "manifest.parquet", out).validate().table
    return {
        row["video"]: row["label"] for row in table_.select("video", "label").unique().to_dicts()
    }


@pytest.mark.parametrize(("grow", "ending"), [(films, ".mp4"), (folders, "")])
def test_a_clip_whose_label_was_corrected_is_there_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, grow: Callable[[Path], Path], ending: str
) -> None:
    root, out = grow(tmp_path / "data"), tmp_path / "crops"
    extract(data(root), Centre, RECIPE, out)
    assert labels(out) == {"mine/real/a": 0, "mine/swap/b": 1, "mine/swap/c": 1}
    (root / f"swap/b{ending}").rename(root / f"real/b{ending}")
    assert extract(data(root), Centre, RECIPE, out) == 0
    assert labels(out) == {"mine/real/a": 0, "mine/real/b": 0, "mine/swap/c": 1}
    assert "mine/real/b was mine/swap/b. Their older crops now lie in" in caplog.text
    assert (out / ".stale/mine/swap/b/video.json").is_file()
    (root / f"real/b{ending}").rename(root / f"swap/b{ending}")  # and back again, and once more
    extract(data(root), Centre, RECIPE, out)
    assert labels(out) == {"mine/real/a": 0, "mine/swap/b": 1, "mine/swap/c": 1}
    (root / f"swap/b{ending}").rename(root / f"real/b{ending}")
    extract(data(root), Centre, RECIPE, out)
    assert labels(out) == {"mine/real/a": 0, "mine/real/b": 0, "mine/swap/c": 1}
    assert (
        main(["index", "data=extracted", f"data.root={out}", f"out={out / 'manifest.parquet'}"])
        == 0
    )
    assert labels(out) == {"mine/real/a": 0, "mine/real/b": 0, "mine/swap/c": 1}


def test_crops_that_a_part_of_the_source_does_not_list_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, out = folders(tmp_path / "data"), tmp_path / "crops"
    extract(data(root), Centre, RECIPE, out)
    whole = labels(out)
    for part in ({"videos": 1}, {"forgeries": ["none of them"]}):
        extract(data(root, **part), Centre, RECIPE, out)
        assert labels(out) == whole
    for shard in ((0, 2), (1, 2)):
        extract(data(root), Centre, RECIPE, out, shard)
    assert not (out / ".stale").exists()
    other = folders(tmp_path / "other")
    shutil.copystat(root / "swap/b/0.png", other / "real/a/0.png")
    yours = functools.partial(
        folder.scan,
        dataset="yours",
        layout="{domain}/{video}",
        splits={},
        real=["real"],
        split="train",
    )
    extract(data(other, yours, name="yours"), Centre, RECIPE, out)
    assert labels(out) == whole | {
        name.replace("mine", "yours"): label for name, label in whole.items()
    }
    assert "no longer in the source" not in caplog.text


def test_shards_put_aside_what_any_of_them_would_find_twice(tmp_path: Path) -> None:
    root, out = folders(tmp_path / "data"), tmp_path / "crops"
    extract(data(root), Centre, RECIPE, out)
    (root / "swap/b").rename(root / "real/b")
    for shard in ((1, 2), (0, 2)):
        extract(data(root), Centre, RECIPE, out, shard)
    assert (
        main(["index", "data=extracted", f"data.root={out}", f"out={out / 'manifest.parquet'}"])
        == 0
    )
    assert labels(out) == {"mine/real/a": 0, "mine/real/b": 0, "mine/swap/c": 1}


def test_a_clip_that_is_gone_stays_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who deletes videos to make room wants to keep their crops."""
    root, out = folders(tmp_path / "data"), tmp_path / "crops"
    extract(data(root), Centre, RECIPE, out)
    whole = labels(out)
    shutil.rmtree(root / "swap/b")
    extract(data(root), Centre, RECIPE, out)
    assert labels(out) == whole
    assert "1 videos with crops in" in caplog.text
    assert "are no longer in the source, mine/swap/b among them" in caplog.text


def test_a_label_corrected_in_a_table_is_corrected_in_the_crops(tmp_path: Path) -> None:
    root, out = folders(tmp_path / "data"), tmp_path / "crops"
    rows = [
        (
            f"{name}/{n}.png",
            int(name[0] == "s"),
            "mine",
            "swap" if name[0] == "s" else "real",
            name,
            n,
            "train",
        )
        for name in ("real/a", "swap/b", "swap/c")
        for n in range(2)
    ]
    frame = pl.DataFrame(rows, schema=table.REQUIRED_COLUMNS, orient="row")
    source = functools.partial(table.scan, file="table.csv")
    frame.write_csv(root / "table.csv")
    extract(data(root, source), Centre, RECIPE, out)
    own = pl.col("video") == "swap/b"
    frame.with_columns(
        label=pl.when(own).then(0).otherwise("label"),
        domain=pl.when(own).then(pl.lit("real")).otherwise("domain"),
    ).write_csv(root / "table.csv")
    extract(data(root, source), Centre, RECIPE, out)
    assert labels(out) == {"real/a": 0, "swap/b": 0, "swap/c": 1}
    assert not (out / ".stale").exists()
