"""A run is bound to its files: what was changed, removed or added is named by every verb that reads
it, and a kill at any moment leaves nothing to be accused of.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.runs.claim import claim_run
from fmsd.runs.folder import Run
from fmsd.runs.integrity import TOP, State, compare, digest_files
from tests.runs import evaluation, finished, sealed
from tests.surroundings import python_path
from tests.test_integrity import flip

NAMES = (*TOP, "predictions/ff++ (c23).parquet", "predictions/jpeg_3/ff++ (c23).parquet")

HOSTILE: tuple[Any, ...] = (
    [],
    "sha256",
    7,
    {"config.yaml": 7},
    {"config.yaml": "sha256:" + "g" * 64},
    {"config.yaml": "a" * 64},
    {"../../x": "sha256:" + "a" * 64},
    {"/etc/passwd": "sha256:" + "a" * 64},
    {"run.json": "sha256:" + "a" * 64},
    {"predictions/../config.yaml": "sha256:" + "a" * 64},
    {"predictions/../x.parquet": "sha256:" + "a" * 64},
    {"predictions/.../../x.parquet": "sha256:" + "a" * 64},
    {"predictions/a/b/c.parquet": "sha256:" + "a" * 64},
    {"predictions/a\x00.parquet": "sha256:" + "a" * 64},
)
"""What is no mapping from files of a run to digests."""


def remove(path: Path, other: Path) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    """Puts the same file of another run in its place."""
    path.write_bytes(other.read_bytes() if other.is_file() else b"of another run")


def flip_middle(path: Path, other: Path) -> None:
    flip(path, path.stat().st_size // 2)


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "flip": flip_middle,
    "swap": swap,
    "remove": remove,
}


@pytest.fixture
def whole(tmp_path: Path) -> Run:
    """A run with a file of every name that has a digest."""
    run = Run(tmp_path / "run")
    for name in NAMES:
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_text(f"this is {name}")
    run.finish({"seed": 0})
    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_good_until_it_is_changed_removed_or_added(name: str, whole: Run) -> None:
    def state() -> State:
        (file,) = compare(whole.folder, whole.record(), [name])
        return file.state

    assert state() == State.GOOD
    whole.check(*NAMES)
    path = whole.folder / name
    flip(path, 3)
    assert state() == State.CHANGED
    with pytest.raises(InputError, match="is not the file that the run wrote") as refused:
        whole.check(*NAMES)
    assert str(path) in str(refused.value)
    path.unlink()
    assert state() == State.MISSING
    with pytest.raises(InputError, match=r"is missing, and the run\.json of this run names it"):
        whole.check(name)
    sealed(whole)
    whole.check(*NAMES)
    path.write_text("of another run")
    assert state() == State.ADDED
    with pytest.raises(InputError, match="was added after the run had ended"):
        whole.check(name)
    whole.write_record({"seed": 0})
    assert state() == State.NOT_RECORDED
    whole.check(*NAMES)


def test_every_file_of_a_run_that_has_a_digest_is_recorded_and_no_other(whole: Run) -> None:
    for name in ("notes.txt", "predictions/.x.parquet.0.partial", "logs/metrics.csv"):
        (whole.folder / name).parent.mkdir(exist_ok=True)
        (whole.folder / name).write_text("another file")
    assert list(digest_files(whole.folder)) == list(NAMES)


def test_digests_that_are_none_are_refused(whole: Run, capsys: pytest.CaptureFixture[str]) -> None:
    good = whole.record()
    for files in HOSTILE:
        record = good | {"files": files}
        (whole.folder / "run.json").write_text(json.dumps(record))
        refused = r"does not hold the digests of a run's files|is damaged: 'files"
        with pytest.raises(InputError, match=refused):
            whole.check("config.yaml")
    assert main(["verify", f"run={whole.folder}"]) == 2
    assert "run.json" in capsys.readouterr().err


def test_a_run_that_is_taken_up_again_is_bound_to_its_files_once_it_is_finished(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    with claim_run(run, "a: 1", resumable=True):
        run.write_record({"stamps": {"x": {}}})
        run.write("results.csv", "first")
        assert not run.finished
        run.finish(run.record())
    assert run.finished
    (tmp_path / "results.csv").unlink()
    with claim_run(run, "a: 1", resumable=True):
        assert run.record() == {"stamps": {"x": {}}, "files": None}
        run.write("results.csv", "second")
        run.finish(run.record())
    run.check("results.csv", "config.yaml")


def test_verify_lists_what_fits_and_what_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [sealed(finished(tmp_path / f"run{seed}", ["method=lora"], seed)) for seed in (0, 1)]
    sealed(evaluation(runs[0].folder, "later", "dfdc", 0, 3))
    finished(tmp_path / "interrupted", ["method=lora"], 2)

    def verified(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        code = main(["verify", *words, "--json"])
        document = json.loads(capsys.readouterr().out)
        assert document["exit_code"] == code
        return document

    found = verified(f"runs={tmp_path}")
    assert (found["exit_code"], found["error"]) == (0, None)
    counts = {Path(row.pop("run")).name: row for row in found["tables"]["runs"]}
    none = dict.fromkeys(("changed", "missing", "added", "not_recorded"), 0)
    assert counts == {
        "interrupted": none | {"good": 0, "not_recorded": 3},
        "run0": none | {"good": 3},
        "later": none | {"good": 2},
        "run1": none | {"good": 3},
    }
    assert "1 of 4 runs have no digests in their run.json" in found["notes"][0]
    assert len(found["tables"]["files"]) == 3 + 3 + 2 + 3

    later = runs[0].folder / "evaluations" / "later"
    flip(later / "predictions" / "dfdc.parquet", 40)
    found = verified(str(runs[0].folder))
    assert f"{later / 'predictions' / 'dfdc.parquet'} is not the file that" in found["error"]
    assert "fmsd evaluate" in found["remedy"]
    (runs[0].folder / "results.csv").unlink()
    shutil.copy(tmp_path / "run0" / "predictions" / "ff.parquet", later / "predictions")
    (runs[1].folder / "run.json").write_text("{")
    found = verified(f"runs={tmp_path}")
    assert found["error"].startswith("4 files are not what their run wrote, ")
    states = {
        (Path(row["run"]).name, row["file"]): row["state"]
        for row in found["tables"]["files"]
        if row["state"] not in ("good", "not recorded")
    }
    assert states == {
        ("run0", "results.csv"): "missing",
        ("later", "predictions/dfdc.parquet"): "changed",
        ("later", "predictions/ff.parquet"): "added",
        ("run1", "run.json"): "changed",
    }
    capsys.readouterr()
    assert main(["verify", f"runs={tmp_path}"]) == 2
    told = capsys.readouterr()
    assert re.search(rf"{runs[0].folder / 'results.csv'} +│ missing", told.out)
    assert told.err.count("\n") == 1


def test_verify_finds_damaged_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    run = finished(tmp_path / "run", ["method=lora"], 0)
    for name in ("best.ckpt", "last.ckpt"):
        (run.folder / "checkpoints").mkdir(exist_ok=True)
        torch.save({"state_dict": torch.arange(4096.0)}, run.folder / "checkpoints" / name)
    assert main(["verify", str(run.folder)]) == 0
    flip(run.folder / "checkpoints" / "last.ckpt", 4000)
    assert main(["verify", str(run.folder)]) == 2
    assert "last.ckpt is damaged: its part" in capsys.readouterr().err
    (run.folder / "checkpoints" / "last.ckpt").write_bytes(b"half")
    assert main(["verify", str(run.folder)]) == 2
    assert "last.ckpt cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["run=a", "runs=b"], ["runs=empty"], ["empty"]])
def test_verify_needs_a_run(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["verify", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_evaluation_of_other_weights_than_the_run_has_now_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = finished(tmp_path / "run", ["method=lora"], 0)
    (run.folder / "adapter.safetensors").write_bytes(b"weights")
    sealed(run)
    later = evaluation(run.folder, "later", "dfdc", 0, 3)
    weights = run.record()["files"]["adapter.safetensors"]
    later.finish(later.record() | {"weights": weights})
    assert main(["report", f"runs={tmp_path}", "--json"]) == 0
    assert '"dfdc"' in capsys.readouterr().out
    (run.folder / "adapter.safetensors").write_bytes(b"of a training that went on")
    sealed(run)
    assert main(["report", f"runs={tmp_path}", "--json"]) == 0
    assert '"dfdc"' not in capsys.readouterr().out
    assert "1 evaluations are left out, as they tested other weights" in caplog.text
    assert main(["verify", str(run.folder)]) == 2
    assert "later tested other weights than those that" in capsys.readouterr().err


# ---- every verb, on runs that were trained


@pytest.fixture(scope="module")
def place(specialists: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained runs, an evaluation under a corruption, and a merge."""
    place = tmp_path_factory.mktemp("verify")
    shutil.copytree(specialists / "runs", place / "runs")
    later = place / "runs" / "fmsd" / "evaluations" / "later"
    assert (
        main(
            [
                "evaluate",
                f"run={place / 'runs' / 'fmsd'}",
                "corrupt=[jpeg]",
                "severities=[1]",
                f"hydra.run.dir={later}",
            ]
        )
        == 0
    )
    experts = f"experts=[{place / 'runs' / 'fmsd'},{place / 'runs' / 'lora'}]"
    assert main(["merge", experts, f"out={place / 'pair'}"]) == 0
    return place


DETECTOR = ("config.yaml", "adapter.safetensors", "adapter.json")

READERS: Mapping[str, tuple[list[str], dict[str, tuple[str, ...]]]] = {
    "evaluate": (["run=runs/fmsd"], {"runs/fmsd": (*DETECTOR, "validation.parquet")}),
    "evaluate, results": (["run=runs/fmsd"], {"runs/fmsd": ("results.csv",)}),
    "explain": (["run=runs/fmsd"], {"runs/fmsd": DETECTOR}),
    "fold": (["run=runs/fmsd", "out=folded.safetensors"], {"runs/fmsd": DETECTOR}),
    "merge": (
        ["experts=[runs/fmsd,runs/lora]", "out=again"],
        {"runs/fmsd": (*DETECTOR, "predictions/folder.parquet")},
    ),
    "merge, one more": (
        ["add=runs/full", "to=pair", "out=again"],
        {"pair": ("config.yaml", "merge.json"), "runs/full": DETECTOR},
    ),
    "cite": (["run=runs/fmsd"], {"runs/fmsd": ("config.yaml",)}),
    "report": (
        ["runs=runs", "out=report", "resamples=0"],
        {
            "runs/fmsd": (
                "config.yaml",
                "mask.json",
                "spectra.json",
                "predictions/folder.parquet",
            ),
            "runs/fmsd/evaluations/later": ("config.yaml", "corruptions.csv"),
        },
    ),
    "report, results": (
        ["runs=runs"],
        {"runs/fmsd": ("results.csv",), "runs/fmsd/evaluations/later": ("results.csv",)},
    ),
}
"""The arguments of a verb, and the files of runs that it reads.

A run without `results.csv` is not finished, so it is none that lacks something.
"""


WITHOUT = {"evaluate": "validation.parquet", "merge": "folder.parquet"}
"""The files that a verb reads if they are there, and does without if they are not."""


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "damage",
    ["flip", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swap", "remove"))],
)
def test_a_file_that_is_not_the_run_s_own_is_named_before_anything_is_written(
    damage: str,
    reader: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    words, files = READERS[reader]
    command = [reader.partition(",")[0], *words]
    if damage == "remove" and reader.endswith("results"):
        pytest.skip("a run without results is not finished")
    for path in (Path(run, name) for run, names in files.items() for name in names):
        if damage == "remove" and path.name == WITHOUT.get(reader):
            continue
        with kept(path):
            DAMAGES[damage](path, Path("runs/lora", path.name))
            before = snapshot(place)
            assert main(command) == 2, path
            told = capsys.readouterr().err
            assert told.count("\n") == 1, told
            assert str(path) in told
            if not (reader.startswith("report") and path.suffix == ".csv"):  # it names the row
                assert ("is missing" if damage == "remove" else "is not the file") in told
            assert snapshot(place) == before
            assert (
                main(["verify", "pair" if path.parts[0] == "pair" else "runs/" + path.parts[1]])
                == 2
            )
            assert str(path) in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("reader", WITHOUT)
def test_a_verb_does_without_a_file_that_its_detector_is_not_made_of(
    reader: str, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(place)
    words, files = READERS[reader]
    (path,) = (
        Path(run, name)
        for run, names in files.items()
        for name in names
        if Path(name).name == WITHOUT[reader]
    )
    new = place / f"without_{reader}"
    out = f"out={new}" if reader == "merge" else f"hydra.run.dir={new}"
    with kept(path):
        path.unlink()
        assert main([reader, words[0], out]) == 0
    assert f"{path.name} is missing: " in caplog.text
    assert Run(new).finished
    shutil.rmtree(new)


@pytest.mark.slow
def test_runs_that_nobody_touched_are_good(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main(["verify", "runs=."]) == 0
    assert "Files that are not" not in capsys.readouterr().out
    for reader, (words, _) in READERS.items():
        assert main([reader.partition(",")[0], *words]) == 0, reader
        for written in ("again", "report"):
            shutil.rmtree(place / written, ignore_errors=True)
    assert main(["verify", "runs=."]) == 0


@contextlib.contextmanager
def kept(path: Path) -> Iterator[None]:
    """Puts a file back as it was."""
    content = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(content)


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Time and size of every file."""
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- kills

KILLED = """
import json, os, sys
from pathlib import Path
import fmsd.tasks.evaluate, fmsd.tasks.merge, fmsd.tasks.train, timm
from fmsd.cli.main import main

def child(words, writes=None):
    number = os.fork()
    if number:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    replace = Path.replace
    def replace_and_die(self, target):
        nonlocal writes
        result = replace(self, target)
        writes -= 1
        if writes == 0:
            os._exit(9)
        return result
    if writes is not None:
        Path.replace = replace_and_die
    os._exit(main(words))

def finished():
    record = run / "run.json"
    return record.is_file() and json.loads(record.read_text())["files"] is not None

run, words, ends = Path(sys.argv[1]), sys.argv[2:], []
while not finished() and len(ends) < 40:
    code = child(words, len(ends) + 1)
    verified = child(["verify", str(run)]) if (run / "run.json").is_file() else None
    ends.append([code, verified])
Path("ends.json").write_text(json.dumps(ends))
"""
"""Runs a command until its run is finished, killed each time after one write more than before."""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no fork")
@pytest.mark.parametrize("verb", ["train", "evaluate", "merge"])
def test_a_run_that_was_killed_between_two_writes_is_accused_of_nothing_and_goes_on(
    verb: str, place: Path, specialists: Path, tmp_path: Path
) -> None:
    runs = place / "runs"
    words = {
        "train": [
            "data=folder",
            f"data.root={specialists / 'data'}",
            "trainer=smoke",
            "backbone=demo_vit",
            "method=fmsd",
            "optimizer.lr=1e-2",
            "hydra.run.dir=run",
        ],
        "evaluate": [
            f"run={runs / 'fmsd'}",
            "corrupt=[jpeg]",
            "severities=[1]",
            "hydra.run.dir=run",
        ],
        "merge": [f"experts=[{runs / 'fmsd'},{runs / 'lora'}]", "out=run"],
    }[verb]
    whole = {
        "train": runs / "fmsd",
        "evaluate": runs / "fmsd" / "evaluations" / "later",
        "merge": place / "pair",
    }[verb]
    subprocess.run(
        [sys.executable, "-c", KILLED, "run", verb, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path()},
        check=True,
        capture_output=True,
        timeout=1200,
    )
    ends = json.loads((tmp_path / "ends.json").read_text())
    assert len(ends) > 5
    assert {code for code, _ in ends} == {9}
    assert {verified for _, verified in ends} <= {None, 0}
    run = Run(tmp_path / "run")
    assert run.finished
    assert run.record()["files"].keys() == Run(whole).record()["files"].keys()
    same = set(run.record()["files"]) - {"config.yaml", "adapter.json", "merge.json"}  # paths
    for name in same:
        assert (run.folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_that_was_interrupted_before_its_record_is_told_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0")
    assert main(["verify", f"run={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert "is not finished, so there is nothing to compare yet" in told
    assert f"go on with fmsd train resume={tmp_path}" in told
