"""`fmsd reproduce`: the commands behind a table, what it skips, and how it compares with recorded numbers."""

import logging
from pathlib import Path

import polars as pl
import pytest
import yaml

from fmsd.cli import CONF, main
from fmsd.tasks.reproduce import compare, filled, reproduce
from fmsd.types import InputError
from tests.conftest import grow_tree

NETWORK = (
    *("data=folder", "data.root=data", "data.test=[folder]", "data.batch_size=8", "data.workers=0", "trainer.accelerator=cpu", "backbone=vit_tiny"),
    *("backbone.pretrained=false", "backbone.size=32", "+backbone.patch_size=8", "+backbone.embed_dim=24", "+backbone.depth=2"),
    *("+backbone.num_heads=2", "trainer.max_epochs=1", "trainer.precision=32-true"),
)


def test_a_table_is_made_from_nothing_and_then_found_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap"), videos=6)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        assert main(["reproduce", "robust", "out=again", *NETWORK]) == 0
    runs = sorted(path.parent for path in Path("again").glob("*/run.json"))
    assert [run.name.partition("_")[0] for run in runs] == ["fmsd", "full", "probe"]
    for run in runs:
        stressed = pl.read_csv(run / "evaluations" / "robust" / "corruptions.csv")
        assert set(stressed["corruption"]) == {"none", "jpeg", "noise", "blur", "resize"}
        assert set(stressed["severity"]) == {0, 1, 3, 5}
    page = Path("again/report/results.md").read_text()
    assert "## AUC per video on folder\n" in page
    assert "| clean | jpeg | noise | blur | resize |" in " ".join(page.split())
    assert "made otherwise" in caplog.text or "no recorded numbers" in caplog.text
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["reproduce", "robust", "out=again", *NETWORK]) == 0
    assert "3 finished before (skipped)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*") if path.is_file()} == before


def test_specialists_are_trained_merged_and_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    monkeypatch.chdir(tmp_path)
    steps = yaml.safe_load((CONF / "reproduce.yaml").read_text())["steps"]["merge"]
    forgeries = ["family=blend,swap", "families=[blend,swap]"]
    few = {"train -m experiments=specialists seed={seed} hydra.sweep.dir={out}": forgeries[:1], steps[2]: [forgeries[1], "merger=average,r2m"]}
    asked = {"merge": [" ".join([step, *few.get(step, [])]) for step in steps]}
    for _ in range(2):
        assert reproduce("merge", asked, "out", "0", NETWORK, main, Path("none.csv")) == 0
    assert {path.parent.name for path in Path("out/seed0").glob("*/results.csv")} == {"blend", "swap", "joint"}
    assert len(list(Path("out/merged").glob("*/merge.json"))) == 2
    labels = pl.read_csv("out/report/results.csv")["run"].unique().to_list()
    assert len(labels) == 5
    assert any("data.train_forgeries=null" in label for label in labels)


def test_a_step_that_fails_ends_it_with_its_code() -> None:
    done: list[list[str]] = []

    def command(words: list[str]) -> int:
        done.append(list(words))
        return 3 if len(done) == 2 else 0

    steps = {"one": ["train a={seed}", "merge into={out}", "report x"]}
    assert reproduce("one", steps, "place/{name}", "0,1", ["b=2"], command, Path("none.csv")) == 3  # pyright: ignore[reportArgumentType]
    assert done == [["train", "a=0,1", "b=2"], ["merge", "into=place/one"]]
    with pytest.raises(InputError, match="There is no table 'two' to reproduce; choose one of one"):
        reproduce("two", steps, "out", "0", [], command, Path("none.csv"))  # pyright: ignore[reportArgumentType]


def test_each_trained_run_is_filled_in_and_neither_merges_nor_evaluations(tmp_path: Path) -> None:
    for name, record in (("a", "{}"), ("b", "{}"), ("m", '{"merged": []}'), ("a/evaluations/x", '{"run": "a"}')):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(record)
    lines = list(filled("evaluate run={run} to={out}", str(tmp_path), "0"))
    assert lines == [["evaluate", f"run={tmp_path / name}", f"to={tmp_path}"] for name in ("a", "b")]


@pytest.mark.parametrize(
    ("words", "told"), [([], "Give the name of one table"), (["a", "b"], "Give the name"), (["nothing"], "There is no table 'nothing'")]
)
def test_what_names_no_table_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == 2
    assert told in capsys.readouterr().err


def test_numbers_are_compared_where_they_were_made_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def table(name: str, rows: list[tuple[str, int, str, float, str]]) -> Path:
        frame = pl.DataFrame(rows, schema=["run", "seed", "dataset", "value", "stamp"], orient="row")
        plain = frame.with_columns(level=pl.lit("video"), metric=pl.lit("auc"), n_frames=pl.lit(4), n_videos=pl.lit(2), selection=pl.lit("iid"))
        plain.write_csv(tmp_path / name)
        return tmp_path / name

    recorded = table("recorded.csv", [("a", 0, "x", 0.5, "s1"), ("a", 1, "x", 0.1, "s1"), ("a", 0, "y", 0.7, "s2"), ("b", 0, "x", 0.9, "s1")])
    made = table("made.csv", [("a", 0, "x", 0.6, "s1"), ("a", 0, "y", 0.75, "s2"), ("b", 0, "x", 0.9, "other")])
    both = compare(recorded, made)
    assert both is not None
    assert both.select("run", "dataset", "value", "recorded").rows() == [("a", "x", 0.6, 0.5), ("a", "y", 0.75, 0.7)]
    said = capsys.readouterr().out
    assert all(number in said for number in ("0.675", "0.600", "0.100"))
    assert compare(recorded, table("else.csv", [("a", 0, "x", 0.6, "s9")])) is None
    assert compare(tmp_path / "none.csv", made) is None
