"""Results that cannot be compared are refused or marked."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fmsd.data.content import pixels_digest
from fmsd.errors import InputError
from fmsd.report.rows import load_rows
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
    with pytest.raises(InputError, match=r"ff\.parquet lacks the columns domain"):
        report(runs, by="domain")
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"ff\.parquet is no parquet file"):
        report(runs, by="domain")
    broken.unlink()
    with pytest.raises(InputError, match=r"ff\.parquet cannot be read"):
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
    assert (
        "differ in the training (augment: none and strong) and in the test (size: 224 and 256)"
        in said
    )
    assert "differ='[augment,size]'" in said
    with pytest.raises(InputError, match=r"test \(size: 224 and 256\).*differ='\[augment,size\]'"):
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
            "average of swap0 + swap1": [[], ["a"]],
            "lora": [[], ["b"]],
            "forgeries swap": [[], ["a"]],
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
    with pytest.raises(InputError, match=r"on ff at .* in the training \(train: "):
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
    with pytest.raises(InputError, match=r"on ff at .* in the test \(size: 224 and 256"):
        report(tmp_path)


def test_imported_detectors_stand_beside_trainings_with_marks(tmp_path: Path) -> None:
    finished(tmp_path / "own", ["method=lora"], 0)
    unknown = {"train": {"unknown": ""}, "selection": "unknown", "augment": "unknown"}
    for name, digest in (("one", "a" * 64), ("other", "b" * 64)):
        finished(
            tmp_path / name,
            [f"weights={name}.pth", f"out={name}"],
            0,
            facts=unknown | {"size": 256},
            choices={},
            imported={"detector": "Effort", "format": "effort", "file": "e.pth", "sha256": digest}
            | {"crops": {}},
        )
    report(tmp_path, out=tmp_path / "out", resamples=0)
    rows = pl.read_csv(tmp_path / "out" / "results.csv")["run"].unique().to_list()
    assert {f"imported Effort, sha256 {letter * 8}" for letter in "ab"} < {*rows}
    text = (tmp_path / "out" / "results.md").read_text()
    assert "training not known, size 256" in text
    shutil.rmtree(tmp_path / "other")
    rows = [row.label for row in load_rows(tmp_path)]
    assert "imported Effort" in rows


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
    assert differences["probe"] == "-"
    assert differences["lora"] != "-"
    assert (
        "<sup>b</sup>" not in (tmp_path / "out" / "results.md").read_text().split("## ")[4]
    )  # no cell of the differences bears it


def test_a_refusal_names_all_facts_of_the_column(runs: Path) -> None:
    finished(runs / "other", ["method=lora"], 0, facts={"size": 256}, datasets=("ff",))
    finished(runs / "third", ["method=probe"], 0, facts={"crops": 1.3}, datasets=("ff",))
    with pytest.raises(InputError, match=r"differ='\[crops,size\]'"):
        report(runs)


def with_pixels(run: Path, files: int) -> str:
    """Makes the predictions of a run those of files with some content; returns the digest of ff."""
    digests = {}
    for path in (run / "predictions").glob("*.parquet"):
        table = pl.read_parquet(path).with_columns(content=pl.lit(files, pl.UInt64))
        table.write_parquet(path)
        digests[path.stem] = pixels_digest(table)
    results = pl.read_csv(run / "results.csv")
    pixels = pl.col("dataset").replace_strict(digests)
    results.with_columns(pixels=pixels).write_csv(run / "results.csv")
    assert digests["ff"] is not None
    return digests["ff"]


def test_results_on_other_files_are_refused_and_never_paired(
    methods: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one stamp, that is of the same paths and labels."""
    (one,) = {with_pixels(run, 1) for run in methods.iterdir()}
    report(methods, against="lora")
    assert "+0." in capsys.readouterr().out
    (two,) = {with_pixels(methods / f"lora{seed}", 2) for seed in (0, 1)}
    with pytest.raises(InputError) as refused:
        report(methods)
    said = str(refused.value)
    assert f"pixels: {one} and {two}" in said or f"pixels: {two} and {one}" in said
    assert "differ='[pixels]'" in said
    capsys.readouterr()
    report(methods, against="lora", differ=["pixels"], out=tmp_path / "out")
    printed = capsys.readouterr().out
    assert f"pixels {one}" in printed
    assert f"pixels {two}" in printed
    assert "+0." not in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert one in page
    assert two in page


def test_results_without_digests_are_compared_as_before(methods: Path) -> None:
    plain = report(methods)
    with_pixels(methods / "fmsd0", 1)
    assert report(methods).height == plain.height


@pytest.mark.parametrize(
    "damage",
    [
        {"overlap": 3},
        {"overlap": {"ff": "three"}},
        {"pixels": ["ff"]},
        {"pixels": {"ff": {"changed": 1}}},
    ],
    ids=str,
)
def test_a_damaged_record_of_test_files_is_named(methods: Path, damage: dict[str, object]) -> None:
    file = methods / "fmsd0" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(InputError, match=r"fmsd0.run\.json is damaged: .*'(overlap|pixels)"):
        report(methods)


def test_numbers_of_training_frames_differ_beside_a_merge_or_when_told(tmp_path: Path) -> None:
    def tested(name: str, count: int, **more: Any) -> None:
        run = finished(
            tmp_path / name,
            ["data=ff", f"data.train_forgeries=[{name}]"],
            0,
            facts={"overlap": count} if count else {},
            **more,
        )
        run.finish(run.record() | {"overlap": {"ff": count}})

    tested("a", 3)
    tested("b", 0)
    with pytest.raises(InputError, match=r"overlap: 3 and null.*differ='\[overlap\]'"):
        report(tmp_path)
    report(tmp_path, out=tmp_path / "told", differ=["overlap"], resamples=0)
    tested("ab", 5, merged=["a", "b"])
    report(tmp_path, out=tmp_path / "merged", resamples=0)
    for out in ("told", "merged"):
        text = (tmp_path / out / "results.md").read_text()
        assert "3 of these test frames are training frames (overlap=allow)" in text
    assert "5 of these test frames are training frames (overlap=allow)" in text


def test_every_fact_that_differs_is_refused_with_two_short_values(tmp_path: Path) -> None:
    crops = {"size": 256, "margin": 1.3}
    for name, facts in (
        ("a", {"decoder": "a" * 64, "crops": crops}),
        ("b", {"decoder": "a" * 64, "crops": crops, "augment": "flip"}),
        ("c", {"decoder": "b" * 64, "crops": crops | {"margin": 1.5}}),
    ):
        finished(tmp_path / "runs" / name, [f"method={name}"], 0, facts=facts, datasets=("ff",))
    with pytest.raises(InputError) as refused:
        report(tmp_path / "runs")
    said = str(refused.value)
    runs = tmp_path / "runs"
    assert f"results of {runs / 'a'} and {runs / 'b'} on ff at frame level cannot share" in said
    assert "they differ in the training (augment: none and flip); " in said
    assert f"{runs / 'c'} differs from the first in the test (decoder: {'a' * 12} and " in said
    assert f'{"b" * 12}; crops: {{"margin": 1.3}} and {{"margin": 1.5}})' in said
    assert "differ='[augment,crops,decoder]'" in said
    report(runs, out=tmp_path / "out", differ=["all"], resamples=0)
    text = (tmp_path / "out" / "results.md").read_text()
    assert "b" * 12 in text
    assert "b" * 13 not in text
    assert "size" not in text.partition("<sup>a</sup> ")[2].partition("\n")[0]
