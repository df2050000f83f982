"""`--json`: one document on stdout, whatever else is printed, and errors in it, too."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fmsd.cli.json_flag import TABLE_VERBS
from fmsd.cli.main import main
from fmsd.cli.verbs import VERBS
from fmsd.console import print_table
from fmsd.json_output import FORMAT, no_document, write_document
from tests.conftest import fmsd_command, grow_tree
from tests.runs import finished, method_runs
from tests.test_sweeps import TINY as SWEEP

TINY = tuple(word for word in SWEEP if word != "-m")


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The document of a command; nothing else is on stdout, and the exit code is in it."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["verb"]) == (FORMAT, arguments[0])
    assert found["exit_code"] == code
    return found


def test_every_verb_that_prints_a_table_is_known() -> None:
    assert {*TABLE_VERBS} - {"reproduce"} <= {*VERBS}
    assert {*VERBS} - {*TABLE_VERBS} == {"cite", "dashboard", "demo", "explain", "fold", "pack"}


def test_a_report_has_the_numbers_of_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = method_runs(tmp_path / "runs")
    arguments = ("report", f"runs={runs}", f"out={tmp_path / 'out'}", "against=lora")
    found = document(capsys, *arguments, "resamples=20")
    assert (found["out"], found["error"]) == (str(tmp_path / "out"), None)
    assert "resamples" not in found
    tidy = pl.read_csv(tmp_path / "out" / "results.csv").filter(metric="auc")
    rows = {(row["run"], row["column"], row["level"]): row for row in found["tables"]["results"]}
    for (run, dataset, level), part in tidy.group_by("run", "dataset", "level"):
        assert rows[run, dataset, level]["value"] == part["value"].mean()
    differences = {
        (row["run"], row["column"], row["level"]): row for row in found["tables"]["differences"]
    }
    one, other = (rows[name, "celeb", "video"] for name in ("fmsd", "lora"))
    difference = differences["fmsd", "celeb", "video"]
    assert difference["value"] == one["value"] - other["value"]
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert any("4 runs below" in note for note in found["notes"])


def test_nothing_else_is_on_stdout_whoever_prints(tmp_path: Path) -> None:
    """Other libraries and child processes write to the file descriptor itself."""
    program = """
import os, subprocess, sys
from fmsd.cli import main as cli
def noisy(arguments):
    print("of python"); os.write(1, b"of a library\\n"); subprocess.run(["echo", "of a child"])
    return 0
cli.dispatch = noisy
sys.exit(cli.main(["report", "--json"]))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["exit_code"] == 0
    for line in ("of python", "of a library", "of a child"):
        assert f"{line}\n" in done.stderr


def test_numbers_are_whole_and_what_json_lacks_is_null(
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [{"a": 1 / 3, "b": math.nan, "c": -math.inf, "d": Path("/x"), "e": [math.nan, 1]}]
    with write_document("report"):
        print_table("t", ["a"], [["0.333"]], "caption", name="x", records=records)
        print_table("t", ["a"], [["0.333"]], "caption", name="x", records=records)
        print_table("t", ["a"], [], "of nothing", name="y", records=[])
    found = json.loads(capsys.readouterr().out)
    row = {"a": 1 / 3, "b": None, "c": None, "d": "/x", "e": [None, 1]}
    assert found["tables"] == {"x": [row, row], "y": []}
    assert found["notes"] == ["caption"]


def test_an_error_is_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "report", "runs=/nowhere")
    assert found["exit_code"] == 2
    assert found["error"] == "There is no finished run below /nowhere"
    assert found["remedy"] == "give a folder of runs as runs=FOLDER"
    assert main(["report", "runs=/nowhere", "--json"]) == 2
    assert capsys.readouterr().err == f"fmsd: {found['error']}; {found['remedy']}.\n"
    assert document(capsys, "trian")["error"].startswith("There is no verb 'trian'")
    assert (
        document(capsys, "report", "runs=x", "resamples=a")["error"] == "resamples=a is no number"
    )


def test_an_error_of_the_program_is_in_the_document_and_raised(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError), write_document("report"):
        raise ZeroDivisionError("of no use")
    found = json.loads(capsys.readouterr().out)
    assert (found["error"], found["exit_code"]) == ("ZeroDivisionError: of no use", 1)


def test_a_command_that_runs_others_has_their_documents(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with write_document("reproduce") as outer:
        print_table("t", ["a"], [["1"]], name="own", records=[{"a": 1}])
        assert main(["--version"]) == 0
        with no_document():  # a job of a sweep
            print_table("of a job", ["a"], [["1"]], name="job", records=[{"a": 1}])
        outer.exit_code = main(["report", "runs=/nowhere"])
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [(step["verb"], step["exit_code"]) for step in found["steps"]] == [
        ("--version", 0),
        ("report", 2),
    ]
    assert found["error"] == found["steps"][1]["error"] == "There is no finished run below /nowhere"
    assert found["tables"] == {"own": [{"a": 1}]}
    assert "of a job" in captured.err


@pytest.mark.parametrize("verb", sorted({*VERBS} - {*TABLE_VERBS}))
def test_a_verb_without_a_table_refuses_it(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, verb)
    assert found["exit_code"] == 2
    assert found["error"] == f"fmsd {verb} prints no table, so it has no --json"


def test_what_does_not_run_a_verb_once_refuses_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "evaluate", "-m", "run=a,b")
    assert "shows the tables of one job, and -m runs several" in found["error"]
    assert "--cfg keeps it from running" in document(capsys, "train", "--cfg", "job")["error"]


def test_help_and_version_stay_text(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["report", "--help", "--json"], ["--version", "--json"]):
        assert main(arguments) == 0
        assert "fmsd" in capsys.readouterr().out.splitlines()[0]


def test_the_doctor_and_the_index_have_their_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grow_tree(tmp_path / "data", videos=2)
    data = ("data=folder", "data.root=data")
    found = document(capsys, "doctor", *data, "workers=0", "out=x.json")
    report = json.loads((tmp_path / "x.json").read_text())
    assert found["tables"]["findings"] == report["findings"]
    assert found["tables"]["videos"] == report["counts"]
    assert {*found["tables"]} == {"findings", "videos", "shortcuts"}
    assert found["out"] == str(tmp_path / "x.json")
    found = document(capsys, "index", *data, "out=x.parquet")
    (row,) = found["tables"]["datasets"]
    assert (row["dataset"], row["frames"], row["test_videos"]) == ("folder", 24, 4)
    assert len(row["digest"]) == 64


def test_only_the_first_of_several_processes_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "resume=/nowhere", "--json"]) == 2
    assert capsys.readouterr().out == ""
    for verb in {*TABLE_VERBS} - {"train"}:  # each runs in one process, whoever started it
        assert document(capsys, verb, "nothing/of=it")["exit_code"] == 2


@pytest.mark.parametrize("end", ["3", "'It ends here'", "None"])
def test_whatever_ends_a_command_is_in_its_document(end: str, tmp_path: Path) -> None:
    program = f"""
import sys
from fmsd.cli import main as cli
cli.dispatch = lambda arguments: sys.exit({end})
sys.exit(cli.main(["report", "--json"]))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    found = json.loads(done.stdout)
    expected = {
        "3": (3, "The command ended with exit code 3; see stderr for the reason"),
        "'It ends here'": (1, "It ends here"),
        "None": (0, None),
    }[end]
    assert (found["exit_code"], found["error"]) == expected
    assert done.returncode == found["exit_code"]


def test_a_sweep_that_cannot_begin_has_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "multirun.yaml").touch()
    sweep = ("-m", "data=synthetic", "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    found = document(capsys, "train", *sweep)
    error = f"The sweep cannot begin: {tmp_path / 'multirun.yaml'} is of another sweep"
    assert found["error"].startswith(error)
    assert found["remedy"] == "choose another folder with hydra.sweep.dir=FOLDER"
    assert found["remedy"] not in found["error"]


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "one", ["data=ff"], 0)
    command = f"{sys.executable} -m fmsd report runs=runs --json | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", ["--help", "roots", "roots --json", "trian --json"])
@pytest.mark.parametrize("output", [">&-", "2>&-", "> /dev/full"])
def test_an_output_that_takes_nothing_is_refused(
    arguments: str, output: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m fmsd {arguments} {output}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    sentence = {
        ">&-": "fmsd: The standard output is closed; ",
        "2>&-": "fmsd: The standard error output is closed; ",
        "> /dev/full": "fmsd: The output cannot be written (No space left on device); ",
    }[output]
    assert sentence in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True], ids=["one process", "two processes"])
def test_a_training_and_its_evaluation(several: bool, tmp_path: Path) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    more = ["trainer=ddp", "trainer.devices=2"] if several else []
    done = fmsd_command(*TINY, *more, "hydra.run.dir=run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["out"] == str(tmp_path / "run")
    results = pl.read_csv(tmp_path / "run" / "results.csv").filter(metric="auc")
    assert [row["auc"] for row in found["tables"]["auc"]] == results["value"].to_list()
    assert any("parameters trained" in note for note in found["notes"])
    verdicts = pl.read_csv(tmp_path / "run" / "verdicts.csv")
    assert found["tables"]["verdicts"] == verdicts.to_dicts()
    if several:
        return
    arguments = ("evaluate", "run", "corrupt=[jpeg]", "severities=[1,3]", "--json")
    tested = fmsd_command(*arguments, cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    tables = json.loads(tested.stdout)["tables"]
    assert tables["auc"] == found["tables"]["auc"]
    assert tables["verdicts"] == found["tables"]["verdicts"]
    kinds = [(row["corruption"], row["severity"]) for row in tables["robustness"]]
    assert sorted(kinds) == [("jpeg", 1), ("jpeg", 3), ("none", 0)]


@pytest.mark.slow
def test_a_sweep_lists_its_jobs(tmp_path: Path) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    sweep = ("hydra.sweep.dir=sweep", "seed=0,-1", "--json")
    done = fmsd_command(*SWEEP, *sweep, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode == 2
    jobs = found["tables"].pop("jobs")
    assert not found["tables"]
    assert [(job["number"], job["ended"], job["code"]) for job in jobs] == [
        (0, "done", 0),
        (1, "failed", 2),
    ]
    assert "seed=-1 must be a whole number" in jobs[1]["why"]
    assert (Path(jobs[0]["folder"]) / "results.csv").is_file()
