"""Sweeps: what jobs in other processes make, the exit code that tells how they ended, and the cores
that they may use.
"""

import contextlib
import importlib.util
import json
import os
import re
import signal
import threading
import tomllib
from pathlib import Path

import pytest
import yaml

from fmsd.cli.main import main
from fmsd.data.processes import available_cores
from tests.conftest import ROOT, grow_tree
from tests.films import film, walk
from tests.surroundings import python_path
from tests.test_sweeps import TINY, told

pytestmark = pytest.mark.slow


def sweep(tmp_path: Path, *words: str) -> tuple[list[str], Path]:
    """A sweep of an extraction in two parts: three videos of two frames, and in the first part one
    that cannot be read.
    """
    root, out = tmp_path / "videos", tmp_path / "crops"
    for number, place in enumerate(("real/b", "swap/a", "swap/b")):
        film(root / "test" / f"{place}.mp4", walk(2, seed=number))
    (root / "test" / "real" / "a.mp4").touch()
    return [
        "extract",
        "-m",
        "shards=2",
        "data=folder",
        f"data.root={root}",
        f"out={out}",
        "workers=1",
        "frames=2",
        "size=32",
        *words,
    ], out


def made(out: Path) -> set[str]:
    return {path.parent.relative_to(out / "folder").as_posix() for path in out.rglob("video.json")}


def test_jobs_in_other_processes_make_their_parts_and_their_failures_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    arguments, out = sweep(tmp_path, "shard=range(2)", "hydra/launcher=submitit_local")
    assert main(arguments) == 1
    assert made(out) == {"real/b", "swap/a", "swap/b"}


def test_a_job_that_fails_or_is_refused_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, out = sweep(tmp_path, "shard=0,1")
    assert main(arguments) == 1
    assert made(out) == {"real/b", "swap/a", "swap/b"}
    (tmp_path / "videos" / "test" / "real" / "a.mp4").unlink()
    assert main(arguments) == 0
    assert main([*arguments[:-1], "shard=7,1"]) == 2
    assert "shard=7/2 does not exist" in capsys.readouterr().err


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores"
)
def test_only_cores_that_the_process_may_use_are_counted() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cores() == len(before)


def test_whatever_is_to_be_installed_with_this_package_is_an_extra_of_it() -> None:
    texts = [
        path.read_text()
        for place in ("fmsd", "conf", "docs")
        for path in (ROOT / place).rglob("*")
        if path.suffix in (".py", ".yaml", ".md")
    ]
    wanted = {
        name.strip()
        for text in texts
        for names in re.findall(r"fmsd\[([\w, -]+)\]", text)
        for name in names.split(",")
    }
    assert (
        {"ray", "faces"}
        <= wanted
        <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
            "optional-dependencies"
        ].keys()
    )


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to train in, with data, from where other processes find this package."""
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", python_path())
    return tmp_path


@pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(),
    reason="this system does not show the commands of processes",
)
def test_side_by_side_a_job_that_is_killed_leaves_the_others_alone(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "seed=0,1", "save_every=1", r"hydra.sweep.dir='it\'s'"]
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.02):
            for process in sorted(
                Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)
            ):  # the job comes before its loader processes
                with contextlib.suppress(OSError):
                    told = (process / "cmdline").read_bytes()
                    if (
                        str(faces).encode() in told
                        and b"_seed1_" in told
                        and any(faces.glob("it's/*seed1*/checkpoints/last.ckpt"))
                    ):
                        os.kill(int(process.name), signal.SIGKILL)
                        return

    killer = threading.Thread(target=kill)
    killer.start()
    code = main([*words, "hydra/launcher=parallel"])
    over.set()
    killer.join()
    assert code == 2
    said = told(capsys)
    assert "1 done, 1 failed" in said
    assert "seed=1" in said
    assert "A process of the training was killed by the system" in said
    assert main(words) == 0
    assert "1 done, 1 finished before (skipped)." in told(capsys)


def test_a_job_on_a_cluster_that_is_refused_is_named(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, "optimizer.lr=-1", "hydra/launcher=submitit_local"]) == 2
    said = told(capsys)
    assert "1 failed" in said
    assert "The optimizer does not take its settings" in said


def test_a_search_maximises_the_validation_auc_and_goes_on(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "optimizer.lr=tag(log, interval(1e-4, 1e-1))", "hydra/sweeper=tpe"]
    assert main([*words, "hydra.sweeper.n_trials=2"]) == 0
    assert "2 done." in told(capsys)
    (sweep,) = (faces / "sweeps").iterdir()

    def found() -> dict[float, float]:
        return {
            record["monitored"]: yaml.safe_load((path.parent / "config.yaml").read_text())[
                "optimizer"
            ]["lr"]
            for path in sweep.glob("*/run.json")
            for record in [json.loads(path.read_text())]
        }

    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(found())
    assert found()[best["best_value"]] == best["best_params"]["optimizer.lr"] or len(found()) == 1
    assert main([*words, "hydra.sweeper.n_trials=3"]) == 0
    assert "1 done, 2 finished before (skipped)." in told(capsys)
    assert len(list(sweep.glob("*/run.json"))) == 3
    assert yaml.safe_load((sweep / "optimization_results.yaml").read_text())["best_value"] == max(
        found()
    )


def test_a_search_of_which_every_trial_fails_says_so(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                *TINY,
                "optimizer.lr=interval(-2, -1)",
                "hydra/sweeper=tpe",
                "hydra.sweeper.n_trials=1",
            ]
        )
        == 2
    )
    said = capsys.readouterr()
    assert "1 failed" in said.out
    assert "fmsd: The sweep broke off" in said.err


def test_ray_runs_the_jobs_of_a_sweep_where_it_is_installed(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None:
        assert main([*TINY, "seed=0,1", "hydra/launcher=ray_jobs"]) == 2
        assert "install it with: pip install 'fmsd[ray]'" in capsys.readouterr().err
        assert not (faces / "sweeps").exists()
        pytest.skip(
            "hydra-ray-launcher is not installed: it declares older versions of packages than ours"
        )
    assert main([*TINY, "seed=0,1", "hydra/launcher=ray_jobs"]) == 0
    assert "2 done." in told(capsys)
