"""Results that cannot be compared are refused or marked."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from fmsd.errors import InputError
from fmsd.runs.folder import Run
from fmsd.tasks.report import report
from tests.runs import finished, frames, lines, method_runs, specialist_runs, written


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return specialist_runs(tmp_path / "runs")


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    return method_runs(tmp_path / "runs")


def test_predictions_that_cannot_be_used_are_told(runs: Path) -> None:
    broken = runs / "merge" / "predictions" / "ff.parquet"
    pl.read_parquet(broken).drop("domain").write_parquet(broken)
    with pytest.raises(InputError, match=r"ff\.parquet does not hold a run's predictions .*domain"):
        report(runs, by="domain")
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError, match="does not hold a run's predictions"):
        report(runs, by="domain")
    broken.unlink()
    with pytest.raises(InputError, match=r"ff\.parquet is gone"):
        report(runs, by="domain")


@pytest.mark.slow
def test_two_stamps_in_one_column_are_refused_and_marked_when_told(
    runs: Path, tmp_path: Path
) -> None:
    finished(
        runs / "other",
        ["data=ff", "method=lora"],
        0,
        facts={"augment": "strong", "size": 256},
        datasets=("ff",),
    )
    with pytest.raises(InputError) as refused:
        report(runs)
    said = str(refused.value)
    assert str(runs / "merge") in said
    assert str(runs / "other") in said
    assert "on ff at frame level" in said
    assert "size: 224 and 256; augment: none and strong" in said
    assert "differ='[augment,size]'" in said
    with pytest.raises(InputError, match=r"level \(size: 224 and 256\).*differ='\[augment,size\]'"):
        report(runs, differ=["augment"])
    with pytest.raises(InputError, match="differ names 'augmentation', which is no fact"):
        report(runs, differ=["augmentation"])
    for differ in (["augment", "size"], ["all"]):
        report(runs, out=tmp_path / "out", differ=differ, resamples=0)
        text = (tmp_path / "out" / "results.md").read_text()
        marks = {
            row[0]: [re.findall("<sup>(.)</sup>", cell) for cell in row[1:]]
            for part in text.split("## ")[1:2]
            for row in lines(part)[2:]
        }
        assert marks == {
            "merger=average": [["a"], []],
            "method=lora": [["b"], []],
            "data.domains=[swap]": [["a"], []],
        }
        assert "<sup>a</sup> size 224, augment none" in text
        assert "<sup>b</sup> size 256, augment strong" in text
    assert "$^{b}$" in (tmp_path / "out" / "results.tex").read_text()
    tidy = report(runs, out=tmp_path / "domains", by="domain", differ=["all"])
    assert tidy["run"].n_unique() == 3
    assert (tmp_path / "domains" / "domains.md").read_text().count(
        "<sup>b</sup>"
    ) == 2 * 3  # two cells and a note per level


def test_a_merge_stands_beside_its_experts_with_marks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        finished(
            tmp_path / name,
            ["data=ff", f"data.train_forgeries=[{name}]"],
            0,
            facts={"train": {"ff": name * 40}},
        )
    with pytest.raises(InputError, match=r"were not tested alike on ff .*train: "):
        report(tmp_path)
    both = {"train": {"ff": "a" * 40, "celeb": "b" * 40}, "selection": "fixed"}
    finished(
        tmp_path / "ab",
        ["experts=[a,b]", "out=ab"],
        0,
        facts=both,
        choices={"merger": "r2m"},
        merged=["a", "b"],
    )
    report(tmp_path, out=tmp_path / "out", resamples=0)
    text = (tmp_path / "out" / "results.md").read_text()
    assert {letter: text.count(f"<sup>{letter}</sup>") > 1 for letter in "abc"} == dict.fromkeys(
        "abc", True
    )
    assert "selection fixed, train ff aaaaaaaaaaaa, celeb bbbbbbbbbbbb" in text
    finished(
        tmp_path / "ab",
        ["experts=[a,b]", "out=ab"],
        0,
        facts=both | {"size": 256},
        merged=["a", "b"],
    )
    with pytest.raises(InputError, match=r"were not tested alike on ff .*size: 224 and 256"):
        report(tmp_path)


def test_numbers_without_a_stamp_are_refused(runs: Path) -> None:
    table = pl.read_csv(runs / "merge" / "results.csv")
    table.drop("stamp").write_csv(runs / "merge" / "results.csv")
    with pytest.raises(InputError, match=r"merge have no protocol stamps.* fmsd evaluate"):
        report(runs)
    table.with_columns(stamp=pl.lit("0" * 12)).write_csv(runs / "merge" / "results.csv")
    with pytest.raises(InputError, match=r"0{12}, which its run.json does not explain"):
        report(runs)


def test_seeds_of_a_row_are_configured_alike(runs: Path) -> None:
    settings = {
        "method": {"rank": 4, "mask": {"file": "a", "seed": 0}},
        "backbone": {"weights": "here"},
        "data": {"root": "x"},
        "seed": 0,
    }
    (runs / "swap0" / "config.yaml").write_text(json.dumps(settings))
    other = {
        "method": {"rank": 4, "mask": {"file": "b", "seed": 1}},
        "backbone": {"weights": "there"},
        "data": {"root": "y"},
        "seed": 1,
    }
    (runs / "swap1" / "config.yaml").write_text(json.dumps(other))
    report(runs)
    other["data"] = {"batch_size": 8}
    (runs / "swap1" / "config.yaml").write_text(json.dumps(other))
    with pytest.raises(InputError, match=r"differ in data\.batch_size \(None and 8\)"):
        report(runs)
    trained = {seed: (runs / f"swap{seed}" / "run.json").read_text() for seed in (0, 1)}
    for seed, text in trained.items():
        (runs / f"swap{seed}" / "run.json").write_text(
            json.dumps(json.loads(text) | {"merged": ["a", "b"]})
        )
    report(runs)
    for seed, text in trained.items():
        (runs / f"swap{seed}" / "run.json").write_text(text)
    del other["data"]
    other["method"]["rank"] = 8
    (runs / "swap1" / "config.yaml").write_text(json.dumps(other))
    with pytest.raises(
        InputError,
        match=r"swap0 and .*swap1 would be seeds of one row, "
        r"but differ in method\.rank \(4 and 8\)",
    ):
        report(runs)
    record = json.loads((runs / "swap1" / "run.json").read_text()) | {"seed": 0}
    (runs / "swap1" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"but differ in method\.rank \(4 and 8\)"):
        report(runs)  # equal overrides and seed, but not the same run twice
    other["method"]["rank"] = 4
    (runs / "swap1" / "config.yaml").write_text(json.dumps(other))
    with pytest.raises(InputError, match="are the same run twice"):
        report(runs)


@pytest.mark.slow
def test_videos_named_otherwise_are_not_compared(methods: Path, tmp_path: Path) -> None:
    named = frames("ff", (), 0).with_columns(
        video=pl.format("{}-{}", "video", "domain")
    )  # so that last names tell all videos apart
    written(
        Run(methods / "other"),
        {"ff": named},
        {"naming": "folder"},
        {"overrides": ["method=probe"], "seed": 0},
    )
    report(
        methods, out=tmp_path / "out", against="fmsd", differ=["manifest", "naming"], resamples=20
    )
    header, _, *rows = lines((tmp_path / "out" / "results.md").read_text().split("## ")[4])
    differences = {row[0]: row[header.index("ff")] for row in rows}
    assert differences["method=probe"] == "-"
    assert differences["method=lora"] != "-"
    assert (
        "<sup>b</sup>" not in (tmp_path / "out" / "results.md").read_text().split("## ")[4]
    )  # no cell of the differences bears it


def test_a_refusal_names_all_facts_of_the_column(runs: Path) -> None:
    finished(runs / "other", ["method=lora"], 0, facts={"size": 256}, datasets=("ff",))
    finished(runs / "third", ["method=probe"], 0, facts={"crops": 1.3}, datasets=("ff",))
    with pytest.raises(InputError, match=r"differ='\[crops,size\]'"):
        report(runs)
