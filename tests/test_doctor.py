"""`fmsd doctor` on images, video files, packs and manifests: processes and exit codes."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from fmsd.cli.main import main
from fmsd.console import track
from fmsd.data.audit import inspect_file
from fmsd.data.audit.inspect_file import Job, inspect_all
from fmsd.data.entries import from_entries
from fmsd.data.manifest import Manifest
from fmsd.tasks.pack import pack
from tests.copies import (
    FFPP,
    LISTED,
    ONE,
    TREE,
    clean_copy,
    cut,
    delete,
    examined,
    forensics,
    module,
    noise,
)
from tests.films import film


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return clean_copy(tmp_path / "copy")


def test_processes_see_what_one_sees(copy: Path) -> None:
    cut(copy)
    jobs = [
        Job(str(path), path.stat().st_size, True, False) for path in sorted(copy.rglob("*.jpg"))
    ]
    assert list(inspect_all(jobs, 2)) == list(inspect_all(jobs, 0))
    assert list(track(inspect_all(jobs, 0), "Opening", len(jobs), "files")) == list(
        inspect_all(jobs, 0)
    )


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a process begins without the test's crashing decoder"
)
@pytest.mark.parametrize("crashing", [(0,), (3, 17), (22, 23), tuple(range(24))])
def test_a_file_that_kills_its_reader_is_told_and_the_others_are_read(
    crashing: tuple[int, ...], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = sorted(str(path) for path in copy.rglob("*.jpg"))
    jobs = [Job(place, 1, False, False) for place in places]
    whole = list(inspect_all(jobs, 0))
    deadly = {places[number] for number in crashing}

    def decode(data: bytes, name: str | Path) -> np.ndarray:
        if name in deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return decoded(data, name)

    decoded = inspect_file.decode
    monkeypatch.setattr(inspect_file, "decode", decode)
    found = list(inspect_all(jobs, 2))
    assert [number for number, seen in enumerate(found) if seen.error] == list(crashing)
    assert {seen.error for seen in found if seen.error} == {
        "the decoder crashed on it, or memory ran out"
    }
    assert [seen for seen in found if not seen.error] == [
        seen for number, seen in enumerate(whole) if number not in crashing
    ]


def reel(root: Path) -> Path:
    """Trees of video files: three real and three fake ones."""
    for number in range(6):
        film(
            root / "test" / ("swap" if number % 2 else "real") / f"v{number}.mp4",
            [noise(10 * number + index, 64) for index in range(12)],
        )
    return root


def test_video_files_are_examined_as_they_are(tmp_path: Path) -> None:
    root = reel(tmp_path / "films")
    report = examined(module(root, TREE), tmp_path, frames=12)
    assert report["findings"] == {}
    assert {
        (part["domain"], part["videos"], part["frames"], part["files"]) for part in report["counts"]
    } == {("real", 3, 0, 3), ("swap", 3, 0, 3)}
    content = (root / "test/real/v0.mp4").read_bytes()
    (root / "test/real/v0.mp4").write_bytes(content[: len(content) // 2])
    (root / "test/swap/v1.mp4").write_bytes(b"")
    shutil.copy(root / "test/swap/v3.mp4", root / "test/real/v2.mp4")
    film(root / "test/real/v4.mp4", [noise(index, 64) for index in range(5)])
    found = {
        check: (one["severity"], one["examples"])
        for check, one in examined(module(root, TREE), tmp_path, frames=12)["findings"].items()
    }
    assert found.pop("unreadable files")[1][0].startswith("The video test/real/v0.mp4 ends after")
    assert found == {
        "empty files": ("fatal", ["test/swap/v1.mp4"]),
        "equal files under two labels": ("fatal", ["test/real/v2.mp4 = test/swap/v3.mp4"]),
        "videos with fewer than 12 frames": ("warning", ["mine/real/v4 has 5"]),
    }


def test_both_the_frames_and_the_file_of_a_video_are_examined(tmp_path: Path) -> None:
    root = forensics(tmp_path / "ff")
    videos = root / "original_sequences/youtube/c23/videos"
    for name in ("000", "001", "002", "003", "004", "005"):
        film(videos / f"{name}.mp4", [noise(int(name) + index, 64) for index in range(4)])
    report = examined(module(root, FFPP), tmp_path)
    assert report["findings"] == {}
    assert (report["files"], report["opened"]) == (30, 30)
    (videos / "003.mp4").write_bytes(b"no video")
    assert set(examined(module(root, FFPP), tmp_path)["findings"]) == {"unreadable files"}


def test_a_packed_copy_is_examined_in_its_tars(copy: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack(module(copy, LISTED), packed, "1G")
    report = examined(module(packed, LISTED), tmp_path)
    assert (report["findings"], report["opened"]) == ({}, 24)
    tar = next(packed.glob("*.tar"))
    with tar.open("r+b") as file:
        file.truncate(tar.stat().st_size // 2)
    assert set(examined(module(packed, LISTED), tmp_path)["findings"]) == {"unreadable files"}
    tar.unlink()
    assert examined(module(packed, LISTED), tmp_path)["findings"]["missing files"]["count"] == 24
    (packed / "pack.parquet").unlink()
    assert set(examined(module(packed, LISTED), tmp_path)["findings"]) == {"refused"}


def test_exit_codes_of_the_command(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fmsd"])
    ask = ["doctor", "data=folder", f"data.root={copy}", "frames=2"]
    assert main(ask) == 0
    report = json.loads((tmp_path / "doctor" / "folder.json").read_text())
    assert (report["fatal"], report["findings"], report["files"]) == (0, [], 24)
    (copy / ONE).write_bytes(b"")
    assert main([*ask, "out=mine.json", "workers=2"]) == 1
    assert json.loads((tmp_path / "mine.json").read_text())["findings"][0]["examples"] == [ONE]
    told = capfd.readouterr()
    assert "empty files" in told.out
    assert "Traceback" not in told.err
    (tmp_path / "notes.json").write_text("{}")
    for wrong, words in (
        ("out=report.txt", "out=FILE.json"),
        ("out=notes.json", "would be lost"),
        ("limit=0", "at least 1"),
        ("workers=-1", "workers"),
    ):
        assert main([*ask, wrong]) == 2
        assert words in capfd.readouterr().err


def test_a_manifest_is_examined_in_place_of_a_scan(copy: Path, tmp_path: Path) -> None:
    Manifest(from_entries(LISTED(copy), copy).table, copy).write(tmp_path / "m.parquet")
    delete(copy)
    report = examined(module(copy, TREE, manifest=str(tmp_path / "m.parquet")), tmp_path)
    assert report["findings"]["missing files"]["examples"] == [ONE]
