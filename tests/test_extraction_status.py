"""Videos that kill their process, and the progress that another process can look at."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data.extraction import workers
from fmsd.data.extraction.faces import Face, YuNet
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.status import HEARTBEAT, SILENCE, Status, keep_status, read_status
from fmsd.data.manifest import read_manifest
from fmsd.errors import InputError
from fmsd.tasks.extract import extract
from tests.films import film, walk
from tests.test_extract import data

RECIPE = Recipe(frames=1, size=32)
POISON = 250
"""The grey of the video that kills its process."""


class Fragile:
    """A detector whose process dies at a bright image, `times` times."""

    about: dict[str, Any] = {"name": "fragile"}  # noqa: RUF012

    def __init__(self, counter: Path, times: int = 2**31) -> None:
        self.counter, self.times, self.detect = counter, times, YuNet()

    def __call__(self, image: np.ndarray) -> list[Face]:
        if image.mean() > POISON - 10:
            with self.counter.open("a") as file:
                file.write("x")
            if self.counter.stat().st_size <= self.times:
                os.kill(os.getpid(), signal.SIGKILL)
            return []
        return self.detect(image)


def tree(root: Path, videos: int = 2) -> Path:
    """A poisoned video among those of two splits."""
    for number in range(videos):
        for split in ("train", "test"):
            film(root / split / "real" / f"{split}{number}.mp4", walk(1, seed=number))
    film(root / "test" / "swap" / "poison.mp4", [np.full((64, 64, 3), POISON, np.uint8)] * 2)
    return root


def fragile(place: Path, times: int = 2**31) -> Callable[[], Fragile]:
    return lambda: Fragile(place, times)


@pytest.mark.parametrize("count", [1, 3])
def test_a_video_that_kills_its_process_fails_after_a_second_try_and_the_others_go_on(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "videos"), tmp_path / "crops"
    failed = extract(data(root), fragile(tmp_path / "deaths"), RECIPE, out, workers=count)
    assert failed == 1
    assert (tmp_path / "deaths").read_text() == "xx"
    assert read_manifest(out / "manifest.parquet", out).videos == 4
    failures = pl.read_csv(out / "failures-mine.csv")
    assert failures["video"].to_list() == ["mine/swap/poison"]
    assert "process died on it twice" in failures["why"][0]
    assert pl.read_parquet(out / "absent.parquet")["outcome"].to_list() == ["unreadable"]
    assert "mine/swap/poison" in capsys.readouterr().out
    assert not (out / ".work").exists()
    (status,) = read_status(out)
    assert (status.videos, status.done, status.failed, status.left) == (5, 4, 1, 0)
    assert status.state(time.time()) == "finished"


def test_a_process_that_was_killed_once_costs_no_video(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "videos"), tmp_path / "crops"
    assert extract(data(root), fragile(tmp_path / "deaths", 1), RECIPE, out, workers=2) == 0
    assert len(list(out.rglob("video.json"))) == 5


def test_where_every_video_kills_its_process_the_extraction_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "videos", videos=1)
    for number in range(2):
        film(root / "test" / "real" / f"a{number}.mp4", [np.full((64, 64, 3), POISON, np.uint8)])
    film(root / "test" / "real" / "b.mp4", [np.full((64, 64, 3), POISON, np.uint8)])
    monkeypatch.setattr(workers, "MAX_DEATHS", 3)
    with pytest.raises(InputError, match=r"died on each of 3 videos in a row.*mine/real/b"):
        extract(data(root), fragile(tmp_path / "deaths"), RECIPE, tmp_path / "crops")
    (status,) = read_status(tmp_path / "crops")
    assert status.state(time.time()) == "stopped"


def test_the_states_of_a_part_and_its_time() -> None:
    new = Status("mine", 1, 3, 20)
    assert (new.videos, new.left, new.state(0), new.seconds_left) == (7, 7, "not started", None)
    begun = Status("mine", 1, 3, 20, before=2, done=2, failed=1, began=100, updated=130)
    assert (begun.left, begun.rate, begun.seconds_left) == (2, 0.1, 20)
    assert begun.state(130 + SILENCE / 2) == "running"
    assert begun.state(130 + 2 * SILENCE) == "stopped"
    assert HEARTBEAT < SILENCE / 2


def test_a_status_is_read_while_others_write_and_by_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "videos"), tmp_path / "crops"
    words = ["extract", "data=folder", f"data.root={root}", f"out={out}", "workers=1"]
    assert main([*words, "frames=1", "size=32", "shard=1/2"]) == 0
    with keep_status(out, Status("other", 0, 1, 50, before=10)) as note:
        note(5, 1)
        capsys.readouterr()
        assert main(["extract", f"status={out}", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        rows = {(row["data"], row["shard"]): row for row in document["tables"]["status"]}
        assert [row["state"] for row in rows.values()] == ["not started", "finished", "running"]
        assert rows["folder", 0]["left"] == 3
        assert (rows["folder", 1]["done"], rows["folder", 1]["failed"]) == (2, 0)
        assert rows["other", 0]["videos"] == 50
    (other,) = [status for status in read_status(out) if status.data == "other"]
    assert (other.done, other.failed, other.left) == (5, 1, 34)
    assert other.state(time.time()) == "stopped"
    assert main(["extract", f"status={out}"]) == 0
    printed = capsys.readouterr().out
    assert "folder 0/2" in printed
    assert "17 of 55 videos are done" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status=."], "is no folder of fmsd extract"),
        (["status=.", "data=folder"], "data=folder would have no effect beside status="),
        (["-m", "status=."], "-m would have no effect beside status="),
        (["status=nowhere"], "nowhere is no folder of fmsd extract"),
    ],
)
def test_the_status_of_something_else_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["extract", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": 0}, "shards"),
        ({"shards": 2**60}, "shards"),
        ({"shard": 1}, "shard 1 of 1"),
        ({"updated": 1e30}, "updated"),
        ({"updated": -1e18}, "updated"),
        ({"data": "../x"}, "data"),
        ({"updated": "now"}, "updated"),
    ],
)
def test_a_damaged_status_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "extract.json").write_text("{}")
    with pytest.raises(InputError, match="does not say how far"):
        read_status(tmp_path)
    with keep_status(tmp_path, Status("mine", 0, 1, 3)):
        pass
    (path,) = (tmp_path / ".status").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"damaged.*{message}"):
        read_status(tmp_path)
