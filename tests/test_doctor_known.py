"""`fmsd doctor` called again: what has not changed is not opened again, and the report is equal."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmsd.data.audit import inspect_file, known_inspections
from fmsd.data.audit.copy import scan_copy
from fmsd.data.audit.files import inspect_files
from fmsd.data.audit.inspect_file import Inspection
from fmsd.data.audit.known_inspections import CACHE, KNOWN_SCHEMA, inspect_changed
from fmsd.data.content_cache import cache_file, cached_digests
from fmsd.data.content_files import file_states
from fmsd.tasks.doctor import doctor
from tests.copies import ONE, TREE, clean_copy, cut, module, noise, write
from tests.films import film

OTHER = "val/real/vala/0.jpg"


def age(root: Path) -> None:
    """Sets the times of all files back: one that was just written may still change unseen."""
    for path in root.rglob("*.*"):
        os.utime(path, ns=(10**18, 10**18))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy with a damaged file, equal files, an image of another kind and a video file."""
    root = clean_copy(tmp_path / "copy")
    (root / "frames.csv").unlink()
    cut(root)
    shutil.copy(root / "train/real/traina/1.jpg", root / "test/swap/testa/1.jpg")
    write(root / "test/real/testb/1.png", noise(1)).rename(root / "test/real/testb/1.jpg")
    film(root / "train/real/film.mp4", [noise(index, 64) for index in range(4)])
    age(root)
    return root


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that are opened; every inspection is written at once."""
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_inspections, "KEPT_EVERY", 0.0)
    monkeypatch.setattr(known_inspections, "WRITE_SHARE", 0)
    monkeypatch.setattr(known_inspections, "WORTH_A_WRITE", 0.0)
    places: list[str] = []
    decode, open_video = inspect_file.decode, inspect_file.open_video

    def seen(path: Path) -> Any:
        places.append(str(path))
        return open_video(path)

    def decoded(data: bytes, name: str | Path) -> np.ndarray:
        places.append(str(name))
        return decode(data, name)

    monkeypatch.setattr(inspect_file, "decode", decoded)
    monkeypatch.setattr(inspect_file, "open_video", seen)
    return places


def report(root: Path, **settings: Any) -> str:
    doctor(module(root, TREE), root.parent / "report.json", 2, workers=0, **settings)
    return (root.parent / "report.json").read_text()


def test_a_call_that_is_killed_is_taken_up_and_its_report_is_equal(
    copy: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inspect = known_inspections.inspect_all

    def killed(*arguments: Any) -> Any:
        for number, inspection in enumerate(inspect(*arguments)):
            if number == 15:
                raise KeyboardInterrupt
            yield inspection

    monkeypatch.setattr(known_inspections, "inspect_all", killed)
    with pytest.raises(KeyboardInterrupt):
        report(copy)
    assert len(opened) == 16
    assert not (tmp_path / "report.json").exists()
    monkeypatch.setattr(known_inspections, "inspect_all", inspect)
    broken = str(copy / ONE)
    known = {*opened[:15]} - {broken}
    opened.clear()
    resumed = report(copy)
    every = {str(path) for path in copy.rglob("*.*")}
    assert {*opened} == every - known
    assert len(opened) == len(every - known)
    opened.clear()
    assert report(copy) == resumed
    assert opened == [broken]  # what could not be read is read again
    opened.clear()
    assert report(copy, cached=False) == resumed
    assert len(opened) == 25
    for check in ("unreadable_files", "equal_files", "misnamed_files"):
        assert f'"{check}"' in resumed


def test_a_file_that_changed_is_opened_again(copy: Path, opened: list[str]) -> None:
    report(copy)
    opened.clear()
    write(copy / OTHER, noise(500, 90))  # of a size that no other file has
    report(copy)
    assert sorted(opened) == sorted(str(copy / name) for name in (ONE, OTHER))
    opened.clear()
    report(copy)  # it was just written: another change might keep its time
    assert sorted(opened) == sorted(str(copy / name) for name in (ONE, OTHER))


def test_a_file_is_hashed_once_another_has_its_size(copy: Path, opened: list[str]) -> None:
    name = "val/swap/vala/1.jpg"
    write(copy / name, noise(600, 90))
    age(copy)
    assert (copy / name).stat().st_size not in {
        path.stat().st_size for path in copy.rglob("*.jpg") if path != copy / name
    }
    assert "vala/1.jpg" not in report(copy)
    shutil.copy(copy / name, copy / "train/swap/traina/copied.jpg")
    age(copy)
    opened.clear()
    assert "train/swap/traina/copied.jpg = val/swap/vala/1.jpg" in report(copy)
    assert {Path(place).name for place in opened} == {"0.jpg", "1.jpg", "copied.jpg"}
    assert report(copy) == report(copy, cached=False)


def test_a_damaged_cache_is_not_used(copy: Path, opened: list[str]) -> None:
    first = report(copy)
    path = cache_file(copy, CACHE)
    path.write_bytes(path.read_bytes()[:-100])
    assert report(copy) == first
    assert report(copy) == first


def _inspect(root: Path, places: Sequence[str]) -> list[Any]:
    """The inspections of images, from the cache or not."""
    states = file_states(places)
    files = states.with_columns(film=False, hashed=True)
    return inspect_changed(files, root, 0).rows()


def test_two_calls_at_once_keep_what_each_of_them_read(
    copy: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = sorted(str(path) for path in copy.rglob("*.jpg"))
    whole = [tuple(inspection) for inspection in _fresh(places)]
    inspect = known_inspections.inspect_all

    def beside_another(*arguments: Any) -> Any:
        monkeypatch.setattr(known_inspections, "inspect_all", inspect)
        for number, inspection in enumerate(inspect(*arguments)):
            if number == 5:
                assert _inspect(copy, places[1::2]) == whole[1::2]
            yield inspection

    monkeypatch.setattr(known_inspections, "inspect_all", beside_another)
    assert _inspect(copy, places[::2]) == whole[::2]
    known = cached_digests(copy, CACHE, KNOWN_SCHEMA, complete=False)
    assert sorted(known["file"]) == sorted({*places} - {str(copy / ONE)})
    assert _inspect(copy, places) == whole


def _fresh(places: Sequence[str]) -> list[Inspection]:
    return [
        inspect_file.inspect(inspect_file.Job(place, Path(place).stat().st_size, True, False))
        for place in places
    ]


def test_a_limited_call_helps_a_whole_one(copy: Path, opened: list[str]) -> None:
    manifest = scan_copy(TREE, copy).manifest
    assert manifest is not None
    inspect_files(manifest, 10, 0)
    opened.clear()
    known = inspect_files(manifest, None, 0)
    assert len(opened) <= 16
    assert known.equals(inspect_files(manifest, None, 0, cached=False))
