"""Sweeps: what jobs in other processes make, the exit code that tells how they ended, and the cores that they may use."""

import os
from pathlib import Path

import pytest

from fmsd.cli import main
from fmsd.data.processes import cores
from tests.conftest import ROOT
from tests.films import film, walk


def sweep(tmp_path: Path, *words: str) -> tuple[list[str], Path]:
    """A sweep of an extraction in two parts: three videos of two frames, and in the first part one that cannot be read."""
    root, out = tmp_path / "videos", tmp_path / "crops"
    for number, place in enumerate(("real/b", "swap/a", "swap/b")):
        film(root / "test" / f"{place}.mp4", walk(2, seed=number))
    (root / "test" / "real" / "a.mp4").touch()
    return ["extract", "-m", "shards=2", "data=folder", f"data.root={root}", f"out={out}", "workers=1", "frames=2", "size=32", *words], out


def made(out: Path) -> set[str]:
    return {path.parent.relative_to(out / "folder").as_posix() for path in out.rglob("video.json")}


def test_jobs_in_other_processes_make_their_parts_and_their_failures_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments, out = sweep(tmp_path, "shard=range(2)", "hydra/launcher=submitit_local")
    assert main(arguments) == 1
    assert made(out) == {"real/b", "swap/a", "swap/b"}


def test_a_job_that_fails_or_is_refused_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, out = sweep(tmp_path, "shard=0,1")
    assert main(arguments) == 1
    assert made(out) == {"real/b", "swap/a", "swap/b"}
    (tmp_path / "videos" / "test" / "real" / "a.mp4").unlink()
    assert main(arguments) == 0
    assert main([*arguments[:-1], "shard=7,1"]) == 2
    assert "shard=7/2 does not exist" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_only_cores_that_the_process_may_use_are_counted() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)
