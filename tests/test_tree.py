"""What lies in folders is read, or counted and reported."""

import functools
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from fmsd.data.entries import from_entries
from fmsd.data.extraction.source_videos import group_videos
from fmsd.data.extraction.video import sample_video
from fmsd.data.frame import Frame, Problem, Video
from fmsd.data.loading import image
from fmsd.data.loading.image import read_image
from fmsd.data.selected_frames import list_frames, load_training_splits
from fmsd.data.selection import Selection
from fmsd.data.sources import celebdf, df40, dfdc, ffpp, folder, tree, uadfv, wilddeepfake
from fmsd.data.sources.tree import list_videos, read_folder
from fmsd.errors import InputError
from fmsd.tasks.doctor import doctor
from fmsd.tasks.index import index
from tests import test_celebdf, test_df40, test_dfdc, test_ffpp, test_uadfv, test_wilddeepfake
from tests.conftest import grow_tree, write_image
from tests.films import walk

SPLITS = ("train", "val", "test")
TREE = functools.partial(
    folder.scan,
    dataset="mine",
    layout="{split}/{domain}/{video}",
    splits={split: split for split in SPLITS},
    real=["real"],
)  # pyright: ignore[reportArgumentType]

# ---- endings

BLOCKS = np.kron(
    np.random.default_rng(0).integers(60, 190, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
)


@pytest.mark.parametrize("ending", sorted(image.SUFFIXES))
def test_an_image_of_every_ending_is_read_back(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{ending.upper()}"
    Image.fromarray(BLOCKS).save(file)
    assert read_folder(tmp_path).images == [file.name]
    read = read_image(file)
    assert read.shape == BLOCKS.shape
    assert np.abs(read.astype(int) - BLOCKS).mean() < 8


CONTAINERS = {
    **dict.fromkeys(
        (".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi", ".mkv", ".flv", ".f4v", ".nut", ".mxf"),
        ("libx264", None),
    ),
    **dict.fromkeys((".ts", ".mts", ".m2ts", ".m2t"), ("libx264", "mpegts")),
    **dict.fromkeys((".h264", ".264"), ("libx264", "h264")),
    **dict.fromkeys((".h265", ".265", ".hevc"), ("libx265", "hevc")),
    **dict.fromkeys((".mpg", ".mpeg", ".mpe", ".m2p"), ("mpeg1video", "mpeg")),
    **dict.fromkeys((".webm", ".ivf"), ("libvpx-vp9", None)),
    **dict.fromkeys((".ogv", ".ogm"), ("libvpx", "ogg")),
    **dict.fromkeys((".divx", ".xvid"), ("mpeg4", "avi")),
    **dict.fromkeys((".wmv", ".asf"), ("wmv2", "asf")),
    **dict.fromkeys((".rm", ".rmvb"), ("rv10", "rm")),
    **dict.fromkeys((".mjpeg", ".mjpg"), ("mjpeg", "mjpeg")),
    ".qt": ("libx264", "mov"),
    ".vob": ("mpeg2video", "vob"),
    ".m1v": ("mpeg1video", "mpeg1video"),
    ".m2v": ("mpeg2video", "mpeg2video"),
    ".wtv": ("mpeg2video", "wtv"),
    ".y4m": ("rawvideo", "yuv4mpegpipe"),
    ".dv": ("dvvideo", "dv"),
    ".gif": ("gif", "gif"),
}


def film(path: Path, codec: str, container: str | None, images: Sequence[np.ndarray]) -> None:
    with av.open(str(path), "w", format=container) as file:
        stream: Any = file.add_stream(codec, 25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        for number, pixels in enumerate(images):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


@pytest.mark.parametrize("ending", sorted(tree.VIDEO_SUFFIXES))
def test_a_video_of_every_ending_is_read_back(ending: str, tmp_path: Path) -> None:
    codec, container = CONTAINERS[ending]
    file, images = (
        tmp_path / f"a{ending}",
        walk(3, size=(720, 576) if ending == ".dv" else (176, 144)),
    )
    film(file, codec, container, images)
    assert read_folder(tmp_path).videos == [file.name]
    found = list(sample_video(file, None))
    assert len(found) == 3
    for sample, pixels in zip(found, images, strict=True):
        assert sample.image is not None
        shown = (
            cv2.resize(pixels, (768, 576)) if ending == ".dv" else pixels
        )  # whose pixels are not square
        assert np.abs(sample.image.astype(int) - shown).mean() < (30 if ending == ".gif" else 5)


def test_every_ending_has_one_meaning() -> None:
    tables = (
        image.SUFFIXES,
        image.UNSUPPORTED_SUFFIXES,
        tree.VIDEO_SUFFIXES,
        tree.UNDECODED_VIDEO_SUFFIXES,
    )
    assert sum(map(len, tables)) == len(frozenset().union(*tables))


def problems(entries: Any, kind: str) -> list[Problem]:
    return [
        entry for entry in entries if isinstance(entry, Problem) and entry.kind.startswith(kind)
    ]


SIDE = (
    "notes.txt",
    "meta.json",
    "landmarks.npy",
    "a.csv",
    "README.md",
    "a.zip",
    "a.parquet",
    "00000.tar",
    ".hidden.heic",
    "sound.wav",
    "Thumbs.db",
)


def test_endings_that_are_not_read_are_counted_and_side_files_are_not(tmp_path: Path) -> None:
    for name in (*SIDE, "a.HEIC", "b.heic", "c.braw", "d.png"):
        (tmp_path / name).touch()
    assert [
        (problem.kind, str(problem), problem.files) for problem in read_folder(tmp_path).problems
    ] == [
        (
            "files ending in .braw",
            f"{tmp_path} holds 1 file ending in .braw, which is not read; convert them to MP4.",
            1,
        ),
        (
            "files ending in .heic",
            f"{tmp_path} holds 2 files ending in .heic, which are not read; convert them to PNG "
            "or JPEG.",
            2,
        ),
    ]


def unread(root: Path) -> dict[str, tuple[Callable[[Path], Any], str]]:
    """A copy of every kind of tree, and where a file that is not read lies in it."""
    grown: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any], str]] = {
        "folder": (grow_tree, TREE, "test/real/new/0.heic"),
        "folder beside frames": (grow_tree, TREE, "test/real/test0/0.heic"),
        "ffpp": (
            test_ffpp.ffpp_tree,
            ffpp.scan,
            "original_sequences/youtube/c23/images/071/9.heic",
        ),
        "ffpp videos": (
            test_ffpp.ffpp_tree,
            ffpp.scan,
            "original_sequences/youtube/c23/071.braw",
        ),
        "uadfv": (
            test_uadfv.extracted,
            functools.partial(uadfv.scan, dataset="u"),
            "fake/9999_fake.braw",
        ),
        "dfdc": (
            functools.partial(test_dfdc.copy, frames="frames"),
            functools.partial(dfdc.scan, dataset="d"),
            "test/zz.braw",
        ),
        "wilddeepfake": (test_wilddeepfake.tree, wilddeepfake.scan, "real_train/0/real/lone.heic"),
        "df40": (test_df40.tree, df40.scan, "DF40/simswap/ff/frames/new/0.heic"),
        "celebdf": (
            lambda place: test_celebdf.copy(
                place, test_celebdf.V2, test_celebdf.V2_TESTED, videos=False
            ),
            functools.partial(celebdf.scan, dataset="c"),
            "Celeb-real/id9_0000.braw",
        ),
    }
    found = {}
    for name, (grow, scan, file) in grown.items():
        place = root / name
        place.mkdir()
        grow(place)
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).touch()
        found[name] = (functools.partial(scan, place), file)
    return found


def test_every_source_reports_what_it_does_not_read(tmp_path: Path) -> None:
    for name, (scan, file) in unread(tmp_path).items():
        entries = [
            part
            for entry in scan()
            for part in (
                [entry]
                if isinstance(entry, Video) and entry.images is None
                else tree.entry_frames(entry)
            )
        ]
        told = problems(entries, "files ending in ")
        assert [problem.files for problem in told] == [1], name
        assert str((tmp_path / name / file).parent) in told[0].what, name


def module(root: Path, **settings: Any) -> Selection:
    return Selection("mine", str(root), TREE, train=["mine"], test=["mine"], **settings)


@pytest.fixture
def odd(tree: Path) -> Path:
    """A tree with three images that are not read in two folders, an empty video folder, an empty
    class, and links to nowhere.
    """
    for name in ("test/real/test0/a.heic", "test/real/test0/b.heic", "train/swap/c.heic"):
        (tree / name).touch()
    for name in ("val/real/empty", "train/other", "train/swap/landmarks"):
        (tree / name).mkdir()
    (tree / "train/swap/landmarks/0.npy").touch()
    for name in ("train/swap/lost", "train/swap/lost.mp4"):
        (tree / name).symlink_to(tree / "nowhere")
    return tree


REPORTED = (
    "test/real/test0 holds 2 files ending in .heic, which are not read; convert them to PNG or "
    "JPEG. (3 files in 2 places: files ending in .heic;",
    "The folder {root}/train/other holds no frames; extract them again. (1 more like "
    "this: folders without frames;",
    "train/swap/lost is a link to {root}/nowhere, which is not there; complete the copy, or "
    "remove the link. (1 more like this: broken links;",
)


def test_index_and_training_report_what_is_left_out(
    odd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        index(module(odd), tmp_path / "m.parquet")
    assert (tmp_path / "m.parquet").is_file()
    for sentence in REPORTED:
        assert sentence.format(root=odd) in caplog.text
    assert len(caplog.records) == 3
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert len(load_training_splits(module(odd), list_frames(module(odd))).both) == 16
    assert [
        record.getMessage() for record in caplog.records if "holds 2 files" in record.getMessage()
    ]


def test_the_doctor_lists_what_is_left_out(odd: Path, tmp_path: Path) -> None:
    doctor(module(odd), tmp_path / "report.json", 2, workers=0)
    findings = {
        finding["check"]: finding
        for finding in json.loads((tmp_path / "report.json").read_text())["findings"]
    }
    kinds = ("files ending in .heic", "folders without frames", "broken links")
    assert [(findings[kind]["severity"], findings[kind]["count"]) for kind in kinds] == [
        ("warning", 2)
    ] * 3
    assert [line.rpartition("/")[2] for line in findings["folders without frames"]["examples"]] == [
        "other holds no frames",
        "empty holds no frames",
    ]


def test_extraction_puts_aside_what_is_left_out(odd: Path) -> None:
    found: list[Problem] = []
    assert len(group_videos(TREE(odd), found)) == 12
    assert sorted({problem.kind for problem in found}) == [
        "broken links",
        "files ending in .heic",
        "folders without frames",
    ]


def test_a_copy_is_refused_only_where_nothing_remains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "test/real").mkdir(parents=True)
    (tmp_path / "test/real/a.heic").touch()
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match=r"No frames were found"):
        from_entries(TREE(tmp_path), tmp_path)
    assert "holds 1 file ending in .heic" in caplog.text


def test_a_reason_to_refuse_a_copy_does_not_hide_its_problems(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "test/swap/0.png", 0, 8)
    (tmp_path / "test/real").mkdir()
    (tmp_path / "test/real/0.heic").touch()
    with caplog.at_level(logging.WARNING), pytest.raises(InputError):
        from_entries(TREE(tmp_path), tmp_path)
    assert "test/real holds 1 file ending in .heic" in caplog.text


# ---- empty folders


@pytest.mark.parametrize(
    "name", ["folder", "ffpp", "celebdf", "uadfv", "dfdc", "wilddeepfake", "df40"]
)
def test_empty_folders_are_left_out_and_reported_by_every_source(name: str, tmp_path: Path) -> None:
    scan, _ = unread(tmp_path)[name]
    whole = from_entries(scan(), tmp_path)
    sizes = whole.table.group_by("video").len().rows()
    first = {
        video: Path(tmp_path, path).parent
        for path, video in whole.table.select("path", "video").rows()
    }
    gone = next(
        first[video] for video, count in sizes if count == len(list(first[video].iterdir()))
    )
    for path in gone.iterdir():
        path.unlink()
    entries = [part for entry in scan() for part in tree.entry_frames(entry)]
    assert f"The folder {gone} holds no frames" in [
        problem.what for problem in problems(entries, tree.FRAMELESS)
    ]
    assert from_entries(scan(), tmp_path).videos == whole.videos - 1


def test_a_class_folder_without_videos_is_reported(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    held, (problem,) = list_videos(tmp_path / "real")
    assert held == {}
    assert (problem.kind, problem.what) == (
        "folders without frames",
        f"The folder {tmp_path}/real holds no frames",
    )


# ---- links, contents, names


def test_a_link_of_an_image_to_nowhere_is_named_when_files_are_looked_for(tree: Path) -> None:
    (tree / "test/real/test0/9.png").symlink_to("/nowhere/9.png")
    manifest = from_entries(TREE(tree), tree)
    with pytest.raises(
        InputError,
        match=r"row \d+ \(test/real/test0/9\.png\) are links to files that are not there; "
        r"complete the copy, or remove",
    ):
        manifest.validate()


def test_a_link_to_itself_is_a_broken_one_and_links_to_folders_are_followed(tree: Path) -> None:
    whole = len(from_entries(TREE(tree), tree))
    (tree / "test/real/self").symlink_to(tree / "test/real/self")
    (tree / "test/real/again").symlink_to(tree / "test/real/test0")
    assert [
        problem.what.rpartition("/")[2] for problem in problems(TREE(tree), "broken links")
    ] == ["self, which is not there"]
    assert len(from_entries(TREE(tree), tree)) == whole + 2


def test_an_image_is_read_by_its_content_and_the_doctor_names_its_ending(
    tree: Path, tmp_path: Path
) -> None:
    file = tree / "test/real/test0/0.png"
    before = read_image(file)
    Image.fromarray(before).save(file, format="BMP")
    assert np.array_equal(read_image(file), before)
    doctor(module(tree), tmp_path / "report.json", 2, workers=0)
    findings = {
        finding["check"]: finding
        for finding in json.loads((tmp_path / "report.json").read_text())["findings"]
    }
    found = findings["endings of other formats"]
    assert (found["severity"], found["examples"]) == (
        "note",
        ["test/real/test0/0.png is a BMP file"],
    )


def nameless(root: Path, what: str) -> str:
    """Gives something a name that is no UTF-8, and returns what is said of it."""
    place = os.fsencode(root / "test/real")
    if what == "image":
        os.rename(place + b"/test0/0.png", place + b"/test0/caf\xe9.png")  # noqa: PTH104
        folder, name = "real/test0", r"caf\xe9.png"
    elif what == "folder":
        os.rename(place + b"/test0", place + b"/\xff")  # noqa: PTH104
        folder, name = "real", r"\xff"
    else:
        Path(os.fsdecode(place + b"/\xff.mp4")).touch()
        folder, name = "real", r"\xff.mp4"
    return rf"The folder {root}/test/{folder} holds {name}, whose name is not UTF-8; rename it."


@pytest.mark.parametrize("what", ["image", "folder", "video"])
def test_names_that_are_no_utf8_are_named_by_every_command(
    what: str, tree: Path, tmp_path: Path
) -> None:
    sentence = nameless(tree, what)
    for command in (
        lambda: index(module(tree), tmp_path / "m.parquet"),
        lambda: list_frames(module(tree)),
        lambda: group_videos(TREE(tree), []),
    ):
        with pytest.raises(InputError) as refusal:
            command()
        assert str(refusal.value) == sentence
    assert not (tmp_path / "m.parquet").exists()
    assert not doctor(module(tree), tmp_path / "report.json", 2, workers=0)
    (refused,) = [
        one
        for one in json.loads((tmp_path / "report.json").read_text())["findings"]
        if one["check"] == "refused"
    ]
    assert f"{refused['examples'][0]}; {refused['remedy']}." == sentence


def test_names_of_side_files_may_be_anything_and_that_of_the_root_not(tree: Path) -> None:
    whole = from_entries(TREE(tree), tree)
    Path(os.fsdecode(os.fsencode(tree) + b"/test/real/\xff.txt")).touch()
    assert from_entries(TREE(tree), tree).digest() == whole.digest()
    other = Path(os.fsdecode(os.fsencode(tree.parent) + b"/\xff"))
    tree.rename(other)
    with pytest.raises(
        InputError, match=r"The name of the folder .*/\\xff is not UTF-8; rename it"
    ):
        from_entries(TREE(other), other)


def test_frames_and_problems_are_frames_of_themselves(tmp_path: Path) -> None:
    for entry in (
        Frame(tmp_path / "a.png", 0, "d", "real", "v", 0, "test"),
        Problem("kind", "What"),
    ):
        assert list(tree.entry_frames(entry)) == [entry]
