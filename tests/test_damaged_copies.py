"""Copies as people have them: partial, nested, mixed, linked in circles, fakes without frames.

Each fault is met once in the code that all sources share, and once in a dataset with lists.
"""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from fmsd.cli.main import main
from fmsd.data.entries import from_entries, log_problems
from fmsd.data.frame import Entry, Problem, Video
from fmsd.data.sources import folder, lavdf
from fmsd.data.sources.listing import find_videos, group_name
from fmsd.data.sources.tree import walk_folders
from fmsd.data.spelling import missing_problems
from fmsd.errors import InputError
from tests.conftest import write_image
from tests.test_lavdf import ROWS, row, tree

DOCTOR = ["doctor", "data=lavdf", "workers=0", "frames=null", "data.expected=null"]


def problems(entries: list[Entry]) -> list[Problem]:
    return [entry for entry in entries if isinstance(entry, Problem)]


def findings(root: Path, out: Path) -> dict[str, list[str]]:
    """The findings of `fmsd doctor` by check."""
    main([*DOCTOR, f"data.root={root}", f"out={out}"])
    return {one["check"]: one["examples"] for one in json.loads(out.read_text())["findings"]}


def test_a_link_to_a_folder_above_is_told_and_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_image(root / "real" / "a" / "0.png", 0, 8)
    write_image(root / "swap" / "b" / "0.png", 0, 8)
    for place, target in (("real/up", root), ("swap/b/self", root / "swap/b"), ("beside", None)):
        (root / place).symlink_to(target or root / "real" / "a", target_is_directory=True)
    (root / "real" / "loop").symlink_to(root / "real" / "loop")  # a link to itself is no folder
    walked = [folder.relative_to(root).as_posix() for folder, _ in walk_folders(root)]
    assert walked == [".", "beside", "real", "real/a", "swap", "swap/b"]
    (root / "beside").unlink()
    entries = list(folder.scan(root, "d", "{domain}/{video}", {}, ["real"], split="test"))
    told = sorted(one.what for one in problems(entries) if one.kind == "links in circles")
    assert [text.partition(" is a link to a folder that holds it")[0] for text in told] == [
        f"{root}/real/up",
        f"{root}/swap/b/self",
    ]
    shutil.rmtree(root)
    tree(root)
    (root / "train" / "again").symlink_to(root, target_is_directory=True)
    entries = list(lavdf.scan(root))
    assert [one.kind for one in problems(entries)] == ["links in circles"]
    assert len(entries) == 6


def test_folders_of_a_mount_without_inodes_are_no_circles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "real" / "a" / "0.png", 0, 8)
    (tmp_path / "real" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a", target_is_directory=True)
    stat = Path.stat

    def without_inode(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        mode, _, _, *others = stat(path, follow_symlinks=follow_symlinks)
        return os.stat_result((mode, 0, 0, *others))

    monkeypatch.setattr(Path, "stat", without_inode)
    walked = [folder.relative_to(tmp_path).as_posix() for folder, _ in walk_folders(tmp_path)]
    assert walked == [".", "link", "real", "real/a"]


def test_a_tenth_of_a_copy_is_a_few_sentences(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(f"test/{number:06d}", number % 2 == 1) for number in range(400)]
    root = tree(tmp_path / "set", rows[:40])
    (root / "metadata.min.json").write_text(json.dumps(rows))
    told = problems(list(lavdf.scan(root)))
    assert [(one.kind, one.domain, one.files) for one in told] == [
        ("missing", "real", 180),
        ("missing", "Wav2Lip", 180),
    ]
    assert "lists test/000040, which" in told[0].what
    assert told[0].what.endswith("and 179 more videos of real")
    with caplog.at_level(logging.WARNING):
        assert len(from_entries(lavdf.scan(root), root)) == 40
    assert len(caplog.records) == 1
    assert "360 files in 2 places" in caplog.text
    assert findings(root, tmp_path / "d.json")["missing"] == [one.what for one in told]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        log_problems(missing_problems(map(str, range(10_000)), (), "the list", root))
    assert len(caplog.records) == 1
    assert "9,999 more like this: missing" in caplog.text


@pytest.mark.parametrize("emptied", ["fake", "real"])
def test_a_class_whose_folders_are_all_empty_is_refused(emptied: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "set")
    label = int(emptied == "fake")
    for about in ROWS:
        if about["modify_video"] == bool(label):
            for image in (root / about["file"].removesuffix(".mp4")).iterdir():
                image.unlink()
    with pytest.raises(InputError, match=f"All {emptied} videos of lavdf lack frames"):
        from_entries(lavdf.scan(root), root)
    found = findings(root, tmp_path / "d.json")
    assert found["refused"] == [
        f"All {emptied} videos of lavdf lack frames: their folders are empty"
    ]
    assert len(found["folders without frames"]) == (2 if label else 3)


def test_a_copy_of_the_shared_tree_code_without_frames_of_fakes_is_refused(tmp_path: Path) -> None:
    entries = [
        Video(None, tmp_path / name, 1 if fake else 0, "d", domain, f"d/{domain}/{name}", "test")
        for name, fake, domain in (("a", False, "real"), ("b", True, "swap"), ("c", True, "swap"))
    ]
    write_image(tmp_path / "a" / "0.png", 0, 8)
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="All fake videos of d lack frames"):
        from_entries(entries, tmp_path)
    write_image(tmp_path / "c" / "0.png", 0, 8)
    assert len(from_entries(entries, tmp_path)) == 2


def test_files_and_frames_in_any_nesting_are_one_video(tmp_path: Path) -> None:
    write_image(tmp_path / "x" / "frames" / "a" / "0.png", 0, 8)
    write_image(tmp_path / "x" / "b" / "0.png", 0, 8)
    write_image(tmp_path / "x" / "masks" / "a" / "0.png", 0, 8)
    (tmp_path / "x" / "videos").mkdir()
    (tmp_path / "x" / "videos" / "a.MP4").touch()
    (tmp_path / "x" / "c.mp3.mp4").touch()
    found, _ = find_videos(tmp_path)
    place = tmp_path / "x"
    assert found == {
        "x/a": (place / "videos/a.MP4", place / "frames/a"),
        "x/b": (None, place / "b"),
        "x/c.mp3": (place / "c.mp3.mp4", None),
    }
    write_image(place / "faces" / "a" / "0.png", 0, 8)
    with pytest.raises(InputError, match="one video by their names") as caught:
        find_videos(tmp_path)
    assert "data.source.frames=NAME" in caught.value.remedy
    assert find_videos(tmp_path, "faces")[0]["x/a"] == (place / "videos/a.MP4", place / "faces/a")
    (place / "a.avi").touch()
    with pytest.raises(InputError, match="are one video by their names"):
        find_videos(tmp_path, "faces")


def test_names_of_groups() -> None:
    names = ("12", "id3", "a_3")
    assert [group_name(name) for name in names] == ["12", "id3", "p266973664706846"]
    assert group_name("a_4") != group_name("a_3")
