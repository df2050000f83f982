"""Sweeps that are killed, run again and extended: what is done stays done, what is missing is done,
what failed is named.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fmsd.cli.main import main
from fmsd.cli.outcome import run_to_end
from fmsd.cli.sweep import CONTENTS, begin_sweep, find_matching_sweep
from fmsd.cli.sweep_jobs import JobNote, report_sweep, run_noted_job
from fmsd.errors import InputError
from fmsd.runs.claim import claim_run
from fmsd.runs.folder import BUSY, ERROR, Run, write_text
from tests.conftest import grow_tree
from tests.surroundings import python_path

pytestmark = pytest.mark.slow

TINY = (
    *(
        "train",
        "-m",
        "data=folder",
        "data.root=data",
        "data.batch_size=8",
        "data.workers=1",
        "method=probe",
        "trainer.accelerator=cpu",
    ),
    *(
        "backbone=vit_tiny",
        "backbone.pretrained=false",
        "backbone.size=32",
        "+backbone.patch_size=8",
        "+backbone.embed_dim=24",
    ),
    *("+backbone.depth=2", "+backbone.num_heads=2", "trainer.max_epochs=1"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somewhere to work, with data."""
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What a sweep said at its end."""
    return capsys.readouterr().out.rpartition("Sweep in ")[2]


def results(sweep: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sweep.glob("*/results.csv")}


def test_a_sweep_that_was_killed_goes_on_to_the_numbers_it_would_have_had(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *TINY,
        "method=probe,norm",
        "seed=0,1",
        "trainer.max_epochs=2",
        "save_every=1",
        "trainer.log_every_n_steps=1",
    ]
    command = [sys.executable, "-m", "fmsd", *words]
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "env": {**os.environ, "PYTHONPATH": python_path()},
    }
    killed = subprocess.Popen(command, start_new_session=True, **quiet)  # pyright: ignore[reportCallIssue, reportArgumentType]
    deadline = time.monotonic() + 200

    def under_way() -> bool:
        """One job is done, and the next has a checkpoint."""
        return (
            any(place.glob("sweeps/*/*/results.csv"))
            and len(list(place.glob("sweeps/*/*/checkpoints/last.ckpt"))) > 1
        )

    while time.monotonic() < deadline and killed.poll() is None and not under_way():
        time.sleep(0.02)
    killed.kill()  # its loader processes outlive it
    assert killed.wait() == -signal.SIGKILL
    (sweep,) = (place / "sweeps").iterdir()
    before = results(sweep)
    assert 0 < len(before) < 4
    assert main(words) == 0
    assert f"{4 - len(before)} done, {len(before)} finished before (skipped)." in told(capsys)
    assert main([*words, "hydra.sweep.dir=whole"]) == 0
    assert [path.name for path in (place / "sweeps").iterdir()] == [sweep.name]
    assert len(results(sweep)) == 4
    assert results(sweep) == results(place / "whole")


def test_a_sweep_is_extended_and_what_fails_in_it_is_named(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, "optimizer.lr=-1,1e-3"]) == 2
    said = told(capsys)
    assert "1 done, 1 failed" in said
    assert re.search(r"optimizer\.lr=-1 +│ The optimizer does not take its settings", said)
    (sweep,) = (place / "sweeps").iterdir()
    (failed,) = sweep.glob(f"*/{ERROR}")
    assert failed.read_text().startswith("The optimizer does not take its settings")
    assert failed.parent.name in said
    assert main([*TINY, "optimizer.lr=1e-3,1e-2"]) == 0
    assert "1 done, 1 finished before (skipped)." in told(
        capsys
    )  # what was refused as a whole does not count
    assert main([*TINY, "optimizer.lr=1e-3", "wrapper=erm,nonsense"]) == 2
    assert main([*TINY, "optimizer.lr=1e-3", "seed=0"]) == 0
    assert "1 done." in told(capsys)  # it sets another key
    assert len(list((place / "sweeps").iterdir())) == 2
    assert main([*TINY, "optimizer.lr=1e-3,nonsense", "seed=0,x"]) == 2
    assert "1 finished before (skipped), 3 failed" in told(capsys)
    mistyped = {path.read_text() for path in place.glob(f"sweeps/*/*seedx*/{ERROR}")}
    assert mistyped == {
        "seed=x is no number; give e.g. seed=0.\n",
        "optimizer.lr=nonsense is no number; give e.g. optimizer.lr=0.001.\n",
    }
    assert main([*TINY, "optimizer.lr=1e-2"]) == 0
    assert "1 finished before (skipped)." in told(capsys)
    assert len(list((place / "sweeps").iterdir())) == 2


def test_a_finished_job_of_other_defaults_is_refused_and_a_sweep_that_cannot_begin_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, "seed=0"]) == 0
    (run,) = place.glob("sweeps/*/*/config.yaml")
    run.write_text(run.read_text().replace("clip: 1.0", "clip: 2.0"))
    assert main([*TINY, "seed=0"]) == 2
    assert "1 failed" in told(capsys)
    assert (
        "differs from this one in learner.clip; begin a new sweep with hydra.sweep.dir=FOLDER"
        in (run.parent / ERROR).read_text()
    )
    (before,) = (place / "sweeps").iterdir()
    known = (before / CONTENTS).read_text()
    assert '"0"' in known  # refused, but it is there
    for words in (
        ("wrapper=erm,nonsense",),
        ("seed=0", "optimizer=nonsense", f"hydra.sweep.dir={before}"),
    ):
        assert main([*TINY, *words]) == 2
        assert "=nonsense; choose one of" in capsys.readouterr().err
        assert [path.name for path in (place / "sweeps").iterdir()] == [before.name]
        assert (before / CONTENTS).read_text() == known


@pytest.mark.parametrize("text", ["{", "[]", '{"seed": 0}', '{"seed": [["0"]]}'])
def test_a_damaged_note_of_what_a_sweep_holds_is_told_and_stops_only_its_own(
    text: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(place / "sweeps" / "old" / CONTENTS, text)
    assert main([*TINY, "seed=0,1", "hydra.sweep.dir=sweeps/old"]) == 2
    said = capsys.readouterr()
    file = place / "sweeps" / "old" / CONTENTS
    assert f"fmsd: The sweep cannot begin: {file} is " in said.err
    assert "; delete it" in said.err
    assert not said.out
    assert find_matching_sweep(place / "sweeps", {"seed": ["0"]}) is None
    write_text(place / "sweeps" / "new" / CONTENTS, '{"seed": ["0", "1"]}')
    os.utime(place / "sweeps" / "new" / CONTENTS, (0, 0))
    assert find_matching_sweep(place / "sweeps", {"seed": ["0"]}) == place / "sweeps" / "new"


def test_a_job_whose_loader_processes_live_has_failed_and_says_why(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in (place / "data" / "train").rglob("*.png"):
        image.write_bytes(image.read_bytes()[:-60])
    assert main([*TINY, "data.workers=2", "seed=0,1"]) == 2
    assert "Sweep in" not in (said := told(capsys))
    assert "2 failed" in said
    assert len(errors := [path.read_text() for path in place.glob(f"**/{ERROR}")]) == 2
    assert all(".png" in error and error.count("\n") == 1 for error in errors)


def broken() -> int:
    raise ZeroDivisionError("of no use")


def refused() -> int:
    raise InputError("It is none", "give another")


@pytest.mark.parametrize(
    ("work", "ended", "code", "error"),
    [
        (lambda: 0, "done", 0, None),
        (lambda: None, "done", 0, None),
        (lambda: -9, "failed", 1, None),
        (lambda: BUSY, "at work in another process", 0, None),
        (broken, "failed", 1, "ZeroDivisionError: of no use"),
        (refused, "failed", 2, "It is none; give another."),
    ],
)
def test_how_a_job_ended_is_in_files(
    work: Callable[[], int],
    ended: str,
    code: int,
    error: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    notes, run = tmp_path / "sweep" / ".jobs" / "1", tmp_path / "sweep" / "job"
    write_text(run / ERROR, "of the time before")
    begin_sweep(tmp_path / "sweep", notes, {"b": ["1", "2", "3"]}, 3)
    JobNote(1, ["b=2"], str(tmp_path / "sweep" / "dead")).write(notes)
    run_noted_job(partial(run_to_end, work, "train", []), JobNote(0, ["b=1"], str(run)), notes)
    lines = (run / ERROR).read_text().splitlines() if (run / ERROR).exists() else [None]
    assert lines[-1] == error
    assert report_sweep(notes) == (code or 1)
    said = capsys.readouterr().out
    assert f"1 {ended}, 1 broken off, 1 not begun" in said
    assert re.search(r"b=2 +│ It ended without a message", said)
    assert (error or "") in said
    assert not notes.parent.exists()


def interrupted() -> int:
    raise KeyboardInterrupt


def test_ctrl_c_is_noted_and_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "sweep" / ".jobs" / "1"
    begin_sweep(tmp_path / "sweep", notes, {"b": ["1", "2", "3"]}, 3)
    with pytest.raises(KeyboardInterrupt):
        job = JobNote(0, ["b=1"], str(tmp_path / "sweep" / "job"))
        run_noted_job(partial(run_to_end, interrupted, "train", []), job, notes)
    assert report_sweep(notes) == 1
    assert "1 interrupted, 2 not begun" in (said := capsys.readouterr().out)
    assert re.search(r"b=1 +│ Interrupted\.", said)


def test_a_job_that_another_process_is_at_work_on_is_left_to_it(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(words := [*TINY, "seed=0,1"]) == 0
    run = Run(next(place.glob("sweeps/*/*seed1*")))
    (run.folder / "results.csv").unlink()
    capsys.readouterr()
    write_text(run.folder / ERROR, "of the time before")
    with claim_run(run, run.config.read_text(), resumable=True):
        assert main(words) == 0
        monkeypatch.setenv("FMSD_SWEEP", str(place))
        alone = [
            word for word in TINY if word != "-m"
        ]  # as a job of a sweep that has a process of its own
        assert main([*alone, "seed=1", f"hydra.run.dir={run.folder}"]) == BUSY
        monkeypatch.delenv("FMSD_SWEEP")
    assert "1 finished before (skipped), 1 at work in another process" in told(capsys)
    assert not (run.folder / ERROR).exists()
    assert main(words) == 0
    assert "1 done, 1 finished before (skipped)." in told(capsys)


def test_only_a_sweep_that_contains_the_other_is_of_its_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for age, (name, text) in enumerate(
        [("old", '{"seed": ["0", "1"], "b": ["x"]}'), ("new", '{"seed": ["1"], "b": ["x", "y"]}')]
    ):
        write_text(tmp_path / name / CONTENTS, text)
        os.utime(tmp_path / name / CONTENTS, (age, age))
    expected: list[tuple[dict[str, list[str]], str | None]] = [
        ({"seed": ["0"], "b": ["x"]}, "old"),
        ({"seed": ["1"], "b": ["x"]}, "new"),
        ({"seed": ["0", "1"], "b": ["x"]}, "old"),
        ({"seed": ["0", "1", "2"], "b": ["x", "y"]}, "new"),
        ({"seed": ["0", "2"], "b": ["x"]}, None),
        ({"seed": ["0"]}, None),
        ({}, None),
    ]
    passed = {
        str(expected[0][0]): ["seed=1 b=x,y"],
        str(expected[2][0]): ["seed=1 b=x,y"],
        str(expected[4][0]): ["seed=1 b=x,y"],
    }
    for asked, name in expected:
        caplog.clear()
        found = find_matching_sweep(tmp_path, asked)
        assert (found and found.name) == name
        assert [record.getMessage() for record in caplog.records] == [
            (
                f"The sweep in {tmp_path / 'new'} is another one, with {other}; "
                "hydra.sweep.dir=FOLDER goes on in it all the same."
            )
            for other in passed.get(str(asked), [])
        ]
