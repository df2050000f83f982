"""From videos to crops, as a user does it."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fmsd.cli.main import main
from fmsd.console import progress
from fmsd.data.description import describe_datasets
from fmsd.data.extraction import opening
from fmsd.data.extraction.faces import YuNet
from fmsd.data.extraction.opening import open_video
from fmsd.data.extraction.output import claim_work_folder
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.loading.image import read_image
from fmsd.data.manifest import read_manifest
from fmsd.data.selected_frames import list_frames, load_test_datasets, load_training_splits
from fmsd.data.selection import Selection
from fmsd.data.sources import extracted, folder
from fmsd.errors import InputError
from fmsd.lock import try_lock
from fmsd.tasks.extract import extract
from fmsd.tasks.pack import pack
from tests.conftest import fmsd_command, write_image
from tests.films import film, shot, sound, walk
from tests.surroundings import python_path

LAYOUT = "{split}/{domain}/{video}"


def tree(root: Path, videos: int = 2, frames: int = 6) -> Path:
    """ROOT/SPLIT/DOMAIN/VIDEO.mp4 with a face each; equal names in both domains."""
    for split in ("train", "test"):
        for number, domain in enumerate(("real", "swap")):
            for video in range(videos):
                film(
                    root / split / domain / f"{split}{video}.mp4",
                    walk(frames, seed=10 * number + video),
                )
    return root


def data(root: Path, **changes: Any) -> Selection:
    splits = {"train": "train", "test": "test"}
    source = functools.partial(
        folder.scan, dataset="mine", layout=LAYOUT, splits=splits, real=["real"]
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


def files(out: Path) -> dict[str, bytes]:
    """What an extraction wrote, but for the manifest and its status."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix != ".parquet" and path.parent.name != ".status"
    }


def command(root: Path, out: Path, *more: str) -> list[str]:
    return ["extract", "data=folder", f"data.root={root}", f"out={out}", "workers=1", *more]


def test_videos_become_crops_and_a_manifest_that_training_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "videos"), tmp_path / "crops"
    assert main(command(root, out, "frames=4", "size=64")) == 0
    assert "32 crops of 8 videos" in capsys.readouterr().out
    manifest = read_manifest(out / "manifest.parquet", out).validate()
    assert manifest.videos == 8
    row = manifest.table.filter(video="folder/swap/test1", index=5).row(0, named=True)
    assert row["path"] == "folder/swap/test1/000005.png"
    assert (row["label"], row["domain"], row["split"]) == (1, "swap", "test")
    assert {read_image(path).shape for path in manifest.files()} == {(64, 64, 3)}
    record = json.loads((out / "folder/swap/test1/video.json").read_text())
    assert [frame["index"] for frame in record["frames"]] == [0, 2, 3, 5]
    assert [frame["status"] for frame in record["frames"]] == ["face"] * 4
    assert record["frames"][1]["seconds"] == pytest.approx(0.08, abs=0.001)
    settings = json.loads((out / "extract.json").read_text())
    assert settings["decoder"].startswith("PyAV ")
    assert settings["detector"]["name"] == "yunet"
    assert (settings["frames"], settings["sampling"], settings["margin"], settings["align"]) == (
        4,
        "spread",
        1.3,
        True,
    )
    loaded = data(out, train=["folder"], test=["folder"], val_fraction=0.5)
    listed = list_frames(loaded)
    assert len(load_test_datasets(loaded, listed)["folder"]) == 16
    assert len(load_training_splits(loaded, listed).validation) == 8


def test_the_extraction_is_part_of_a_run_s_record_also_when_it_was_packed(tmp_path: Path) -> None:
    out, packed = tmp_path / "crops", tmp_path / "packed"
    extract(data(tree(tmp_path / "videos", videos=1)), YuNet, Recipe(frames=2, size=32), out)
    pack(data(out), packed, "1G")
    for root in (out, packed):
        (told,) = describe_datasets(list_frames(data(root))).values()
        assert told["crops"] == json.loads((out / "extract.json").read_text())
    assert list_frames(data(packed)).digest() == list_frames(data(out)).digest()


def rename_codec(path: Path) -> None:
    """Gives the codec of an MP4 file a name that nobody knows."""
    data = path.read_bytes()
    place = data.rindex(b"avc1")
    path.write_bytes(data[:place] + b"zzzz" + data[place + 4 :])


def test_a_video_of_an_unknown_codec_is_named_and_the_others_are_extracted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "videos", videos=1), tmp_path / "crops"
    odd = root / "test" / "real" / "test0.mp4"
    rename_codec(odd)
    said = f"The video {odd} has a codec that FFmpeg does not know"
    with pytest.raises(InputError) as refusal, open_video(odd):
        pass
    assert said in str(refusal.value)
    assert main(command(root, out, "frames=2", "size=64")) == 1
    assert "1 videos could not be read" in capsys.readouterr().out
    assert said in next(out.glob("failures-*.csv")).read_text()
    assert read_manifest(out / "manifest.parquet", out).videos == 3
    report = tmp_path / "d.json"
    assert main(["doctor", "data=folder", f"data.root={root}", "workers=0", f"out={report}"]) == 1
    assert "a codec that FFmpeg does not know" in report.read_text()


def test_frames_that_would_fill_the_memory_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "a.mp4", walk(3))
    monkeypatch.setattr(opening, "MAX_PIXELS", 192 * 128 - 1)
    with (
        pytest.raises(InputError, match=r"The frames of .*a\.mp4 have 192 x 128 pixels"),
        open_video(path),
    ):
        pass
    monkeypatch.setattr(opening, "MAX_PIXELS", 192 * 128)
    with open_video(path) as (container, stream):
        assert sum(1 for _ in container.decode(stream)) == 3


def test_what_is_done_is_left_and_other_settings_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, out = tree(tmp_path / "videos", videos=1), tmp_path / "crops"
    extract(data(root), YuNet, Recipe(frames=2, size=32), out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    film(root / "test" / "real" / "new.mp4", walk(3))
    caplog.set_level("INFO")
    extract(data(root), YuNet, Recipe(frames=2, size=32), out)
    assert "4 of 5 videos are done already" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(read_manifest(out / "manifest.parquet", out)) == 10
    with pytest.raises(
        InputError, match=r"were made with margin=1\.3, not 1\.5; choose another out=FOLDER"
    ):
        extract(data(root), YuNet, Recipe(frames=2, size=32, margin=1.5), out)
    with pytest.raises(InputError, match=r"were made with detector=.*choose another out"):
        extract(data(root), functools.partial(YuNet, score=0.7), Recipe(frames=2, size=32), out)


def test_labels_and_splits_that_were_corrected_since_and_other_files_are_taken_up(
    tmp_path: Path,
) -> None:
    root, out = tree(tmp_path / "videos", videos=1), tmp_path / "crops"
    recipe = Recipe(frames=2, size=32)
    extract(data(root), YuNet, recipe, out)
    before = {
        path.name: path.stat().st_mtime_ns for path in (out / "mine/real/train0").glob("*.png")
    }
    (root / "train/real/train0.mp4").rename(root / "test/real/train0.mp4")
    film(root / "test/swap/test0.mp4", walk(9, seed=4))
    extract(data(root), YuNet, recipe, out)
    table = read_manifest(out / "manifest.parquet", out).table
    assert table.filter(video="mine/real/train0")["split"].unique().to_list() == ["test"]
    assert {
        path.name: path.stat().st_mtime_ns for path in (out / "mine/real/train0").glob("*.png")
    } == before
    assert table.filter(video="mine/swap/test0").sort("index")["index"].to_list() == [0, 8]
    assert len(list((out / "mine/swap/test0").iterdir())) == 3
    (out / "mine/real/test0/video.json").write_text("{}")
    with pytest.raises(
        InputError,
        match=r"test0/video\.json is damaged: .*delete its folder and run fmsd extract again",
    ):
        list(extracted.scan(out))
    extract(data(root), YuNet, recipe, out)
    assert read_manifest(out / "manifest.parquet", out).table.equals(table)


def test_a_trial_of_few_videos_and_some_forgeries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "videos", videos=3), tmp_path / "crops"
    extract(data(root, videos=1, forgeries=["none of them"]), YuNet, Recipe(frames=1, size=32), out)
    assert set(read_manifest(out / "manifest.parquet", out).table["video"]) == {
        "mine/real/train0",
        "mine/real/test0",
    }
    assert main(command(root, tmp_path / "other", "data.frames=5")) == 2
    assert "data.frames=5 would have no effect" in capsys.readouterr().err


@pytest.mark.slow
def test_a_truncated_video_is_named_and_tried_again(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "videos", videos=1, frames=40), tmp_path / "crops"
    path = root / "test/real/test0.mp4"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert extract(data(root), YuNet, Recipe(frames=2, size=32), out) == 1
    assert "ends after" in pl.read_csv(out / "failures-mine.csv")["why"][0]
    assert "mine/real/test0" not in read_manifest(out / "manifest.parquet", out).table["video"]
    path.write_bytes(whole)
    assert extract(data(root), YuNet, Recipe(frames=2, size=32), out) == 0
    assert "mine/real/test0" in read_manifest(out / "manifest.parquet", out).table["video"]


def test_two_at_work_on_the_same_videos_is_refused(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "videos", videos=1), tmp_path / "crops"
    extract(data(root), YuNet, Recipe(frames=1, size=32), out)
    lock = functools.partial(try_lock, patience=0)
    with (
        claim_work_folder(out, "mine", lock),
        pytest.raises(InputError, match=r"Another process is extracting mine into .*crops"),
    ):
        extract(data(root), YuNet, Recipe(frames=1, size=32), out)
    with claim_work_folder(out, "another", lock):
        extract(data(root), YuNet, Recipe(frames=1, size=32), out)
    assert not (out / ".work").exists()


def test_a_file_and_frames_of_one_name_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "videos", videos=1)
    write_image(root / "test/real/test0/0.png", 0)
    with pytest.raises(
        InputError, match=r"test0\.mp4 and .*test0/0\.png are both the video mine/real/test0"
    ):
        extract(data(root), YuNet, Recipe(), tmp_path / "crops")


def test_when_nobody_is_found_it_says_so(tmp_path: Path) -> None:
    empty = np.full((64, 64, 3), 120, np.uint8)
    for domain in ("real", "swap"):
        film(tmp_path / "videos/test" / domain / "wall.mp4", [empty] * 2)
    with pytest.raises(
        InputError,
        match=r"No face was found in any of the videos in .*; lower detector\.score",
    ):
        extract(data(tmp_path / "videos"), YuNet, Recipe(), tmp_path / "crops")


def test_crops_of_first_frames_and_of_evenly_spread_ones_are_not_taken_for_each_other(
    tmp_path: Path,
) -> None:
    root = tree(tmp_path / "videos", videos=1)
    for sampling, kept in (("first", [0, 1]), ("spread", [0, 5])):
        out = tmp_path / sampling
        extract(data(root), YuNet, Recipe(frames=2, sampling=sampling, size=32), out)
        own = list_frames(data(out, sampling=sampling))
        assert own.table["index"].unique().sort().to_list() == kept
        other = {"first": "spread", "spread": "first"}[sampling]
        with pytest.raises(
            InputError,
            match=rf"the protocol dfb_compat wants .*fmsd extract sampling={other} out=FOLDER",
        ):
            list_frames(data(out, sampling=other, protocol="dfb_compat"))
    extract(data(root), YuNet, Recipe(frames=None, size=32), tmp_path / "all")
    assert list_frames(data(tmp_path / "all", sampling="first", frames=2))


def test_words_about_the_source_have_no_silent_effect_on_crops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "videos", videos=1), tmp_path / "crops"
    extract(data(root), YuNet, Recipe(frames=1, size=32), out)
    for verb, word in (
        ("train", "data.source.split=test"),
        ("pack", "data.source.real=[swap]"),
        ("doctor", "+data.source.splits.dev=val"),
    ):
        assert (
            main(
                [
                    verb,
                    "data=folder",
                    f"data.root={out}",
                    word,
                    *([f"out={tmp_path / 'x'}"] if verb == "pack" else []),
                ]
            )
            == 2
        )
        assert f"{word} would have no effect" in capsys.readouterr().err
    kept = data(out, forgeries=["swap"], train=["mine"])
    assert set(list_frames(kept).table["domain"]) == {"real", "swap"}
    with pytest.raises(InputError, match=r"data\.forgeries names real, but data=mine holds swap"):
        list_frames(data(out, forgeries=["real"]))


@pytest.mark.slow
def test_a_killed_extraction_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    root = tree(tmp_path / "videos", videos=8, frames=20)
    assert main(command(root, tmp_path / "whole", "frames=20", "size=96")) == 0
    out = tmp_path / "killed"
    arguments = command(root, out, "frames=20", "size=96")
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from fmsd.cli.main import main; sys.exit(main())",
            *arguments,
        ],
        env={**os.environ, "PYTHONPATH": python_path()},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while (
        len({path.parent.name for path in out.rglob("video.json")}) < 3
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    done = len(list(out.rglob("video.json")))
    assert 3 <= done < 32
    assert not (out / "manifest.parquet").exists()
    with pytest.raises(InputError, match=r"holds crops without a manifest"):
        list_frames(data(out))
    assert main(arguments) == 0
    assert files(out) == files(tmp_path / "whole")
    assert (
        read_manifest(out / "manifest.parquet", out).digest()
        == read_manifest(tmp_path / "whole/manifest.parquet", tmp_path / "whole").digest()
    )
    assert not (out / ".work").exists()


@pytest.mark.slow
def test_shards_are_joined_to_the_same_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, whole, out, swept = (
        tree(tmp_path / "videos"),
        tmp_path / "whole",
        tmp_path / "shards",
        tmp_path / "swept",
    )
    extract(data(root), YuNet, Recipe(frames=2, size=32), whole)
    for shard in ((0, 3), (2, 3), (1, 3)):
        extract(data(root), YuNet, Recipe(frames=2, size=32), out, shard)
        assert not (out / "manifest.parquet").exists()
    assert main(["index", "data=extracted", f"data.root={out}", f"out={out}/manifest.parquet"]) == 0
    assert files(out) == files(whole)
    assert (
        read_manifest(out / "manifest.parquet", out).digest()
        == read_manifest(whole / "manifest.parquet", whole).digest()
    )
    folders = [
        "-m",
        "shard=range(2)",
        "shards=2",
        "data=folder",
        f"data.root={root}",
        f"out={swept}",
        "workers=1",
        "frames=2",
        "size=32",
    ]
    assert main(["extract", *folders]) == 0
    assert len(list(swept.rglob("video.json"))) == 8
    capsys.readouterr()
    assert main(command(root, tmp_path / "none", "shard=3/3")) == 2
    assert "shard=3/3 does not exist; shards are counted from 0 to 2" in capsys.readouterr().err
    assert main(command(root, tmp_path / "none", "shard=x")) == 2
    assert "give shard=0/8, or shard=0 shards=8" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_videos_that_cannot_be_read_are_named_and_the_others_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "videos"), tmp_path / "crops"
    broken = root / "test" / "swap"
    (broken / "empty.mp4").touch()
    (broken / "torn.mp4").write_bytes((broken / "test0.mp4").read_bytes()[:200])
    sound(broken / "talk.m4a").rename(broken / "talk.mp4")
    assert main(command(root, out, "frames=2", "size=32")) == 1
    said = capsys.readouterr().out
    assert "3 videos could not be read" in said
    table = pl.read_csv(out / "failures-folder.csv")
    assert table["video"].to_list() == ["folder/swap/empty", "folder/swap/talk", "folder/swap/torn"]
    assert "is empty (0 bytes)" in table["why"][0]
    assert "holds no video, only audio" in table["why"][1]
    assert read_manifest(out / "manifest.parquet", out).videos == 8
    for path in broken.glob("t[ao][lr]*.mp4"):
        path.unlink()
    (broken / "empty.mp4").unlink()
    assert main(command(root, out, "frames=2", "size=32")) == 0
    assert not (out / "failures-folder.csv").exists()


def test_frames_without_the_face_are_recorded(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "videos", videos=1), tmp_path / "crops"
    empty = np.full((128, 192, 3), 120, np.uint8)
    film(root / "test/real/away.mp4", [*walk(4)[:2], empty, *walk(4)[:1]])
    film(root / "test/real/nobody.mp4", [empty] * 3)
    extract(data(root), YuNet, Recipe(frames=4, size=32), out)
    away, nobody = (
        json.loads((out / "mine/real" / name / "video.json").read_text())["frames"]
        for name in ("away", "nobody")
    )
    assert [frame["status"] for frame in away] == ["face", "face", "none", "face"]
    assert [frame["status"] for frame in nobody] == ["none"] * 3
    manifest = read_manifest(out / "manifest.parquet", out)
    assert manifest.table.filter(video="mine/real/away").sort("index")["index"].to_list() == [
        0,
        1,
        3,
    ]
    assert "mine/real/nobody" not in manifest.table["video"]


def test_of_two_faces_one_person_is_kept(tmp_path: Path) -> None:
    """The other one is larger in one frame, where `track=false` takes her."""
    sides = [116, 116, 64, 116]
    images = [shot((320, 128), [(1, 8, 8, side), (1, 200, 8, 84)]) for side in sides]
    tracked, largest = tmp_path / "tracked", tmp_path / "largest"
    film(tmp_path / "videos/test/real/two.mp4", images, options={"g": "1"})
    film(tmp_path / "videos/test/swap/two.mp4", images, options={"g": "1"})
    for out, track in ((tracked, True), (largest, False)):
        extract(data(tmp_path / "videos"), YuNet, Recipe(frames=4, size=32, track=track), out)
    lefts = [
        [
            frame["box"][0] < 150
            for frame in json.loads((out / "mine/real/two/video.json").read_text())["frames"]
        ]
        for out in (tracked, largest)
    ]
    assert lefts == [[True] * 4, [True, True, False, True]]


def test_image_folders_are_extracted_like_videos(tmp_path: Path) -> None:
    root, out = tmp_path / "images", tmp_path / "crops"
    for domain in ("real", "swap"):
        for number, image in enumerate(walk(5)):
            path = write_image(root / "test" / domain / "clip" / f"{number}.png", 0)
            Image.fromarray(image).save(path)
    (root / "test/real/clip/2.png").write_bytes(b"broken")
    extract(data(root), YuNet, Recipe(frames=3, size=32), out)
    statuses = [
        frame["status"]
        for frame in json.loads((out / "mine/real/clip/video.json").read_text())["frames"]
    ]
    assert statuses == ["face", "damaged", "face"]
    assert read_manifest(out / "manifest.parquet", out).table.filter(domain="swap").sort("index")[
        "index"
    ].to_list() == [0, 2, 4]


@pytest.mark.parametrize("name", ["Жанна Ñandú [人] 100%", "clip.1.final", "Щ" * 112, 'a "b", c'])
def test_names_of_any_script_and_length(tmp_path: Path, name: str) -> None:
    for domain in ("real", "swap"):
        film(tmp_path / "my videos" / "test" / domain / f"{name}.mp4", walk(2))
    out = tmp_path / "die Ausschnitte"
    extract(data(tmp_path / "my videos"), YuNet, Recipe(frames=2, size=32), out)
    manifest = read_manifest(out / "manifest.parquet", out).validate()
    assert f"mine/real/{name}" in manifest.table["video"]
    assert read_image(manifest.files()[0]).shape == (32, 32, 3)


def test_jpeg_crops_have_the_quality_asked_for(tmp_path: Path) -> None:
    root, sizes = tree(tmp_path / "videos", videos=1), []
    for quality in (50, 95):
        out = tmp_path / str(quality)
        extract(data(root), YuNet, Recipe(frames=2, size=64, format="jpg", quality=quality), out)
        sizes.append(sum(path.stat().st_size for path in out.rglob("*.jpg")))
    assert 1.5 * sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "frames=0 must be at least 1"),
        ({"size": 8}, "size=8 must be at least 16"),
        ({"margin": 0.5}, r"margin=0\.5 must be at least 1"),
        ({"sampling": "random"}, "sampling=random is unknown; choose one of spread, first"),
        ({"size": True}, "size=True is not a whole number"),
        ({"format": "bmp"}, "format=bmp is unknown; choose one of png, jpg"),
        ({"quality": 101}, "quality=101 must lie between 1 and 100"),
    ],
)
def test_recipes_that_cannot_be_followed_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**changes)


@pytest.mark.slow
def test_words_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    """In a process of its own: here annotations are checked first."""
    done = fmsd_command(
        *command(tmp_path / "videos", tmp_path / "crops", "frames=1.5"), cwd=tmp_path
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "fmsd: frames=1.5 is not a whole number or null; correct it.",
    )


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "videos", videos=1), tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").touch()
    with pytest.raises(
        InputError, match=r"thesis holds something else; choose an empty or new folder"
    ):
        extract(data(root), YuNet, Recipe(), out)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"No videos were found under .*none"):
        extract(data(tmp_path / "none"), YuNet, Recipe(), tmp_path / "crops")
    assert not (tmp_path / "crops").exists()


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "videos", videos=4, frames=20), tmp_path / "crops"
    code = "import sys; from fmsd.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, *command(root, out, "frames=20", "workers=2")]
    child = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": python_path()})
    deadline = time.monotonic() + 120
    while not list(out.rglob("video.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    tasks = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    if not tasks.exists():
        child.kill()
        pytest.skip("the system does not tell a process's children")
    children = [int(number) for number in tasks.read_text().split()]
    assert len(children) >= 2
    child.kill()
    child.wait()
    while (
        any(Path(f"/proc/{number}").exists() for number in children) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{number}").exists() for number in children)
    assert main(arguments[3:]) == 0


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_rest_is_made_later(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "videos", videos=4, frames=20), tmp_path / "crops"
    code = "import sys; from fmsd.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, *command(root, out, "frames=20")]
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what runs in a shell's background ignores Ctrl-C, and so do its children
    child = subprocess.Popen(
        arguments, env={**os.environ, "PYTHONPATH": python_path()}, start_new_session=True
    )
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while not list(out.rglob("video.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(60) == 130
    assert 0 < len(list(out.rglob("video.json"))) < 16
    assert not (out / ".work").exists()
    assert main(arguments[3:]) == 0
    assert len(list(out.rglob("video.json"))) == 16


def test_progress_in_a_file_is_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with progress("Extracting", 4, "videos", every=0) as advance:
        time.sleep(0.01)
        advance(2, note="57 frames/s")
    assert "Extracting: 2 of 4 videos, 57 frames/s, 0 min left" in caplog.text


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_whole_videos_only(
    tmp_path: Path, tiny_disk: Path
) -> None:
    root, out = tree(tmp_path / "videos", videos=4, frames=12), tiny_disk / "crops"
    with pytest.raises(
        InputError, match=r"no space left in .*crops; make room and run the same command again"
    ):
        extract(data(root), YuNet, Recipe(frames=12, size=128), out)
    done = list(out.rglob("video.json"))
    assert len(done) < 16
    assert not (out / ".work").exists()
    assert not (out / "manifest.parquet").exists()
    for path in done:
        assert all(
            (path.parent / frame["file"]).stat().st_size
            for frame in json.loads(path.read_text())["frames"]
            if frame["status"] == "face"
        )


@pytest.mark.slow
def test_folders_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    """By a user bound by file modes; root is only without two of its capabilities."""
    bound = []
    if os.geteuid() == 0:
        bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if (
            shutil.which("setpriv") is None
            or subprocess.run([*bound, "true"], check=False).returncode
        ):
            pytest.skip("root cannot give up its rights here")
    root, crops = tree(tmp_path / "videos", videos=1), tmp_path / "crops"
    code = "import sys; from fmsd.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = [*bound, sys.executable, "-c", code, *command(root, crops, "frames=1")]
    crops.mkdir()
    for folder_, message in (
        (root / "test" / "swap", r"test/swap cannot be read (Permission denied)"),
        (crops, "crops/"),
    ):
        folder_.chmod(0o500 if folder_ == crops else 0)
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": python_path()},
            cwd=tmp_path,
            check=False,
        )
        folder_.chmod(0o755)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "(Permission denied)" in done.stderr
    assert not list(crops.iterdir())


@pytest.mark.slow
def test_the_real_clips_are_extracted_whole(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "crops"
    layout = [
        "data.source.layout='{domain}_{video}'",
        "data.source.real=[real,lp]",
        "data.source.split=test",
    ]
    done = fmsd_command(
        "extract",
        "data=folder",
        f"data.root={real_data / 'videos'}",
        f"out={out}",
        *layout,
        "frames=4",
        "size=96",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "76 crops of 19 videos" in done.stdout
    manifest = read_manifest(out / "manifest.parquet", out).validate()
    assert dict(manifest.table.group_by("domain").agg(pl.col("video").n_unique()).rows()) == {
        "real": 6 + 3,
        "fake": 10,
    }
