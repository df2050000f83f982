"""`fmsd reproduce`: the commands behind a table, what it skips, and how it compares with recorded
numbers.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
import yaml

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.package_files import CONF
from fmsd.tasks.reproduce import compare_results, expand_step, reproduce
from tests.conftest import grow_tree

pytestmark = pytest.mark.slow

NETWORK = (
    *(
        "data=folder",
        "data.root=data",
        "data.test=[folder]",
        "data.batch_size=8",
        "data.workers=0",
        "trainer.accelerator=cpu",
        "backbone=vit_tiny",
    ),
    *(
        "backbone.pretrained=false",
        "backbone.size=32",
        "+backbone.patch_size=8",
        "+backbone.embed_dim=24",
        "+backbone.depth=2",
    ),
    *("+backbone.num_heads=2", "trainer.max_epochs=1", "trainer.precision=32-true"),
)


def test_a_table_is_made_from_nothing_and_then_found_finished(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap"), videos=6)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        assert main(["reproduce", "robust", "out=again", *NETWORK]) == 0
    runs = sorted(path.parent for path in Path("again").glob("*/run.json"))
    assert [run.name.partition("_")[0] for run in runs] == sorted(
        ("probe", "norm", "lora", "effort", "fmsd", "fmsd", "masm", "full")
    )
    for run in runs:
        stressed = pl.read_csv(run / "evaluations" / "robust" / "corruptions.csv")
        assert set(stressed["corruption"]) == {"none", "jpeg", "blur"}
        assert set(stressed["severity"]) == {0, 2, 4}
    page = Path("again/report/results.md").read_text()
    assert "## AUC per video on folder\n" in page
    assert "| clean | jpeg | blur |" in " ".join(page.split())
    assert "were obtained with other data" in caplog.text
    before = {
        path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*") if path.is_file()
    }
    capsys.readouterr()
    assert main(["reproduce", "robust", "out=again", *NETWORK]) == 0
    again = capsys.readouterr().out
    assert "7 finished before (skipped)" in again
    assert "1 finished before (skipped)" in again
    assert {
        path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*") if path.is_file()
    } == before


def test_specialists_are_trained_merged_and_joined_and_more_seeds_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    monkeypatch.chdir(tmp_path)
    steps = yaml.safe_load((CONF / "reproduce.yaml").read_text())["steps"]["merge"]
    few = [f"{step} merger=average,r2m" if step.startswith("merge") else step for step in steps]
    place = tmp_path / "a table, (1)"
    for seed in ("0", "0,1"):
        values = {"out": str(place), "seed": seed, "forgeries": "blend,swap"}
        assert reproduce("merge", few, values, NETWORK, main, Path("none.csv")) == 0
    for seed in (0, 1):
        assert {path.parent.name for path in (place / f"seed{seed}").glob("*/results.csv")} == {
            "blend",
            "swap",
            "joint",
        }
        assert {
            path.parent.name for path in (place / "merged" / f"seed{seed}").glob("*/merge.json")
        } == {"average", "r2m"}
    table = pl.read_csv(place / "report" / "results.csv")
    labels = {
        "family=blend",
        "family=swap",
        "data.train_forgeries=null family=joint",
        "merger=average",
        "merger=r2m",
    }
    assert set(table["overrides"]) == labels
    assert {"family blend", "average of family blend + family swap"} <= set(table["run"])
    assert table.group_by("run").agg(pl.col("settings").n_unique())["settings"].to_list() == [1] * 5
    assert set(pl.read_csv(place / "report" / "domains.csv")["domain"]) == {"blend", "swap"}


def test_a_step_that_fails_ends_it_with_its_code() -> None:
    done: list[list[str]] = []

    def command(words: Sequence[str]) -> int:
        done.append(list(words))
        return 3 if len(done) == 2 else 0

    steps, values = (
        ["train ++a={seed}", "merge into={out}/x", "report x"],
        {"out": "it's here", "seed": "0,1"},
    )
    assert reproduce("one", steps, values, ["b=2"], command, Path("none.csv")) == 3
    assert done == [["train", "++a=0,1", "b=2"], ["merge", r"into='it\'s here/x'"]]
    for word in ("a=3", "+a=3", "experiments=mine", "hydra.sweep.dir=x"):
        with pytest.raises(InputError, match="would change what the table one compares"):
            reproduce("one", steps, values, [word], command, Path("none.csv"))


def test_each_finished_training_is_filled_in_and_neither_merges_nor_evaluations(
    tmp_path: Path,
) -> None:
    records = {
        "a": "{}",
        "b": '{"finished": true}',
        "c": '{"finished": false}',
        "m": '{"merged": []}',
        "a/evaluations/x": '{"run": "a"}',
    }
    for name, record in records.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(record)
    with pytest.raises(InputError, match="There is no finished training below"):
        list(expand_step("evaluate run={run}", {"out": str(tmp_path)}))
    for name in records:
        (tmp_path / name / "results.csv").touch()
    lines = list(expand_step("evaluate run={run} to={out}", {"out": str(tmp_path)}))
    assert lines == [
        ["evaluate", f"run='{tmp_path / name}'", f"to='{tmp_path}'"] for name in ("a", "b")
    ]


def test_each_forgery_is_filled_in() -> None:
    values = {"out": "x", "forgeries": "a,b"}
    assert list(expand_step("train to={out}/{forgery} all=[{forgeries}] one={first}", values)) == [
        ["train", f"to='x/{name}'", "all=[a,b]", "one=a"] for name in ("a", "b")
    ]
    assert list(expand_step("train one={first}", values)) == [["train", "one=a"]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give the name of one"),
        (["mask", "merge"], "give the name of one"),
        (["nothing", "forgeries=a,b"], "give the name of one"),
        (["robust", "method=norm"], "method=norm would change what the table robust compares"),
        (
            ["robust", "forgeries=a,b"],
            "forgeries=a,b would have no effect: no command of the table robust has it",
        ),
        (["align", "unseen=b"], "unseen=b would change what the table align compares"),
        (
            ["align", "data.train_forgeries=[a]"],
            "data.train_forgeries=[a] would change what the table align compares",
        ),
    ],
)
def test_what_makes_no_table_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *words]) == 2
    assert told in capsys.readouterr().err


def test_numbers_are_compared_where_they_were_made_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def table(name: str, rows: list[tuple[str, int, str, float, str, str]]) -> Path:
        frame = pl.DataFrame(
            rows, schema=["run", "seed", "dataset", "value", "stamp", "settings"], orient="row"
        )
        plain = frame.with_columns(
            level=pl.lit("video"),
            metric=pl.lit("auc"),
            n_frames=pl.lit(4),
            n_videos=pl.lit(2),
            selection=pl.lit("iid"),
        )
        plain.write_csv(tmp_path / name)
        return tmp_path / name

    own = [
        ("a", 0, "x", 0.5, "s1", "c1"),
        ("a", 1, "x", 0.1, "s1", "c1"),
        ("a", 0, "y", 0.7, "s2", "c1"),
        ("b", 0, "x", 0.9, "s1", "c2"),
    ]
    recorded = table("recorded.csv", own)
    made = table(
        "made.csv",
        [
            ("a", 0, "x", 0.6, "s1", "c1"),
            ("a", 0, "y", 0.75, "s2", "c1"),
            ("b", 0, "x", 0.9, "s1", "other"),
        ],
    )
    both = compare_results(recorded, made)
    assert both is not None
    assert both.select("run", "dataset", "value", "recorded").rows() == [
        ("a", "x", 0.6, 0.5),
        ("a", "y", 0.75, 0.7),
    ]
    named = tmp_path / "named.csv"  # whose rows have names, and their overrides a column
    pl.read_csv(made).with_columns(overrides="run", run=pl.lit("a name")).write_csv(named)
    again = compare_results(recorded, named)
    assert again is not None
    assert again.drop("run").equals(both.drop("run"))
    said = capsys.readouterr().out
    assert all(
        number in said for number in ("0.675", "0.600", "0.100", "1 of 3 results are not recorded")
    )
    assert compare_results(recorded, table("else.csv", [("a", 0, "x", 0.6, "s9", "c1")])) is None
    with caplog.at_level(logging.INFO):
        assert compare_results(tmp_path / "none.csv", made) is None
    assert "no recorded results" in caplog.text


@pytest.mark.parametrize("broken", ["settings", "seed", "value", "run"])
def test_damaged_recorded_numbers_are_told_before_anything_is_trained(
    broken: str, tmp_path: Path
) -> None:
    row = {
        "run": "a",
        "seed": 0,
        "dataset": "x",
        "level": "video",
        "metric": "auc",
        "value": 0.5,
        "n_frames": 4,
        "selection": "iid",
    }
    pl.DataFrame([row | {"stamp": "s", "settings": "c"}]).drop(broken).write_csv(
        tmp_path / "recorded.csv"
    )
    with pytest.raises(
        InputError, match=r"recorded\.csv (has no column|does not hold a run's results)"
    ):
        reproduce(
            "one",
            ["train"],
            {"out": "out"},
            [],
            lambda _: pytest.fail("something was trained"),
            tmp_path / "recorded.csv",
        )
