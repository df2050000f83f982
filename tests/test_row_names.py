"""What the rows of a report are called: `label=`, or a name composed of what varies."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.names import LONGEST_LABEL, check_label
from fmsd.report.labels import find_label, row_names
from fmsd.tasks.report import report
from tests.runs import finished


def record(*overrides: str, **keys: Any) -> dict[str, Any]:
    """A `run.json` as far as names need it."""
    return {"overrides": list(overrides), **keys}


def labels(*records: dict[str, Any]) -> list[str]:
    """The labels of runs."""
    return [name.label for name in row_names(records)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([["method=fmsd"], ["method=lora"]], ["fmsd", "lora"]),
        ([["method=fmsd"], ["method=fmsd", "method.mask=null"]], ["fmsd", "fmsd, no mask"]),
        ([["method=lora"], ["+method.rank=8", "method=lora"]], ["lora", "lora, rank 8"]),
        ([["method=lora"]], ["lora"]),
        ([["optimizer.lr=1e-3"], ["optimizer.lr=1e-4"]], ["lr 1e-3", "lr 1e-4"]),
        (
            [["wrapper=sam", "method=lora"], ["wrapper=roga", "method=fmsd"]],
            ["lora, sam", "fmsd, roga"],
        ),
        ([["data=ff", "data.domains=[a,b]"], ["data=ff"]], ["forgeries a and b", "run"]),
        ([["data=ff++"], ["data=celebdf_v2"]], ["ff++", "celebdf_v2"]),
        ([["learner.compiled=true"], ["learner.compiled=false"]], ["compiled", "no compiled"]),
        (  # keys with equal last parts keep one part more
            [["method.lr=1", "optimizer.lr=2"], ["x=1"]],
            ["method lr 1, lr 2", "x 1"],
        ),
        ([["method=fmsd", "seed=1"], ["method=fmsd", "seed=2"]], ["fmsd", "fmsd"]),
    ],
)
def test_a_name_says_what_varies(overrides: list[list[str]], expected: list[str]) -> None:
    assert labels(*(record(*words) for words in overrides)) == expected


def test_choices_that_were_not_typed_have_names_too() -> None:
    one = record("experiments=x", choices={"method": "fmsd", "wrapper": "erm"})
    other = record("experiments=x", "wrapper=sam", choices={"method": "fmsd", "wrapper": "sam"})
    assert labels(one, other) == ["erm", "sam"]


def test_no_name_holds_a_path_of_a_machine() -> None:
    roots = ("/home/me/secret/faces", "C:\\Users\\me\\secret\\faces", "../secret/faces")
    found = labels(
        record("method=lora"),
        *(record("method=lora", f"data.root={root}") for root in roots),
        record("method=lora", "extra=/home/me/secret/x.pt"),
        record("merger=r2m", "experts=[/home/me/secret/a,b]", merged=["/home/me/secret/a", "b"]),
    )
    assert len(set(found)) == 6
    assert not any("secret" in name or "home" in name for name in found), found
    assert "R2M of 2 experts" in found[-1]


def test_a_merge_names_its_experts_by_their_labels() -> None:
    experts = [{"name": "x", "sha256": "a"}, {"name": "y", "sha256": "b"}]
    rows = [
        record("method=lora", files={"adapter.safetensors": "a"}),
        record("method=fmsd", label="mine", files={"adapter.safetensors": "b"}),
        record("merger=r2m", merged=["p", "q"], experts=experts, time="1"),
    ]
    assert labels(*rows) == ["lora", "mine", "R2M of lora + mine"]
    assert labels(rows[2]) == ["R2M of x + y"]  # without the rows, as the merge recorded them
    assert labels(record("merger=ties", merged=["a", "b"])) == ["TIES of a + b"]
    many = [{"name": letter, "sha256": letter} for letter in "uvwxyz"]
    large = record("merger=average", merged=list("uvwxyz"), experts=many)
    assert labels(large) == ["average of u + v + w + 3 more"]
    again = rows[2] | {"files": {"adapter.safetensors": "m"}}
    nested = record(
        "merger=ties",
        merged=["m", "a"],
        experts=[{"name": "m", "sha256": "m"}, {"name": "x", "sha256": "a"}],
        time="2",
    )
    assert labels(nested, *rows[:2], again)[0] == "TIES of R2M of lora + mine + lora"


def test_rows_that_differ_have_names_that_differ() -> None:
    same = [record("merger=r2m", f"experts=[{x}]", merged=["x", "y"]) for x in "ab"]
    assert labels(*same) == ["R2M of x + y (1)", "R2M of x + y (2)"]
    assert labels(record("method=a", label="b"), record("method=b"), record("method=c")) == [
        "b",
        "b (2)",
        "c",
    ]


def test_what_came_from_elsewhere_is_called_by_its_label_or_detector() -> None:
    def external(**keys: Any) -> dict[str, Any]:
        about = {"kind": "detector", "detector": "py:lab:build", "sha256": None}
        return record("out=/home/me/x", external=about, seed=0, **keys)

    assert labels(external(label="SBI"), external(), record("method=lora")) == [
        "SBI",
        "py:lab:build",
        "lora",
    ]


@pytest.mark.parametrize(
    "label", ["", " ", " x", "x ", "a\nb", "a\x1b[1m", "\u202e", "x" * (LONGEST_LABEL + 1), 3, True]
)
def test_a_label_is_one_line_of_text(label: object) -> None:
    with pytest.raises(InputError, match=r"label=.* cannot name a row of a report"):
        check_label(label)


@pytest.mark.parametrize("verb", ["train", "merge"])
def test_a_label_that_is_none_is_refused_before_anything_is_read(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "label=' x'"]) == 2
    assert "label= x cannot name a row of a report" in capsys.readouterr().err


def test_a_row_is_found_by_its_name_or_its_overrides() -> None:
    names, settings = ["fmsd", "fmsd, no mask", "lora"], ["method=fmsd", "method.mask=null", "l"]
    assert find_label("fmsd", names, settings) == "fmsd"
    assert find_label("no mask", names, settings) == "fmsd, no mask"
    assert find_label("method=fmsd", names, settings) == "fmsd"
    assert find_label("mask=null", names, settings) == "fmsd, no mask"
    with pytest.raises(InputError, match="against=x is no row; name one of fmsd; fmsd, no mask"):
        find_label("x", names, settings)
    with pytest.raises(InputError, match="several rows; name one of fmsd; fmsd, no mask"):
        find_label("fm", names, settings)


def test_one_label_is_one_row_of_one_setting(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = finished(tmp_path / f"a{seed}", [f"x={seed}"], seed, label="mine")
        run.write("config.yaml", "method: {rank: 8}\n")
    finished(tmp_path / "b", ["method=lora"], 0)
    tidy = report(tmp_path, out=tmp_path / "out", resamples=0)
    assert set(tidy["run"]) == {"mine", "lora"}
    for name in ("results.csv", "results.md", "results.tex", "report.html"):
        assert "mine" in (tmp_path / "out" / name).read_text()
    assert set(pl.read_csv(tmp_path / "out" / "results.csv")["run"]) == {"mine", "lora"}
    (tmp_path / "a1" / "config.yaml").write_text("method: {rank: 4}\n")
    with pytest.raises(InputError, match=r"would be seeds of one row, but differ in method\.rank"):
        report(tmp_path)
    (tmp_path / "a1" / "config.yaml").write_text("method: {rank: 8}\n")
    finished(tmp_path / "c", ["y=1"], 0, label="mine").write("config.yaml", "method: {rank: 8}\n")
    with pytest.raises(InputError, match=r"the same run twice \(label=mine and seed 0\)"):
        report(tmp_path)
