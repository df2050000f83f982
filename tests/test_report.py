"""Tables over many runs, by test dataset and by forgery: what they say, and what they refuse to put
side by side.
"""

import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import brier_score_loss, roc_auc_score

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.figures import merges
from fmsd.metrics.interval import percentile_interval, resample_metrics
from fmsd.metrics.table import LEVELS, compute_results, with_scores
from fmsd.metrics.video import aggregate_videos
from fmsd.report.markup import escape_latex
from fmsd.report.summary import SEEN, UNSEEN
from fmsd.runs.folder import Run
from fmsd.tasks.report import report

FORGERIES = {"ff": ("swap", "puppet"), "celeb": ("synthesis",), "dfdc": ("swap", "morph")}


def frames(dataset: str, inverted: Sequence[str], seed: int, shift: float = 1.0) -> pl.DataFrame:
    """Scored frames of a dataset; the forgeries in `inverted` score below the reals."""
    rng = np.random.default_rng([seed, len(dataset)])
    rows = []
    for domain in ("real", *FORGERIES[dataset]):
        for video in range(12):
            for index in range(3):
                mean = 0.0 if domain == "real" else -1.5 if domain in inverted else shift
                name = f"{dataset}/{domain}/{video}"
                rows.append(
                    (
                        f"{name}/{index}.png",
                        int(domain != "real"),
                        dataset,
                        domain,
                        name,
                        index,
                        "test",
                        "",
                        rng.normal(mean, 1),
                    )
                )
    columns = (
        "path",
        "label",
        "dataset",
        "domain",
        "video",
        "index",
        "split",
        "compression",
        "logit",
    )
    return pl.DataFrame(rows, schema=columns, orient="row").cast({"logit": pl.Float32})


def stamped(datasets: Sequence[str], **facts: Any) -> dict[str, dict[str, Any]]:
    """The facts of tests by their stamp."""
    found = {}
    for dataset in datasets:
        for level in LEVELS:
            own = {
                "level": level,
                "dataset": dataset,
                "manifest": f"digest-of-{dataset}",
                "protocol": "fmsd",
                "sampling": "uniform",
                "naming": "id",
            }
            own |= {
                "size": 224,
                "video_score": "mean",
                "selection": "iid",
                "augment": "none",
                "train": {"ff": "f" * 40},
            } | facts
            found[hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]] = own
    return found


def written(
    run: Run, tests: Mapping[str, pl.DataFrame], facts: Mapping[str, Any], record: Mapping[str, Any]
) -> Run:
    """Writes what a test leaves in a folder."""
    for dataset, predictions in tests.items():
        run.write_predictions(dataset, predictions)
    stamps = stamped(list(tests), **facts)
    keys = pl.DataFrame(
        [(own["dataset"], own["level"], stamp) for stamp, own in stamps.items()],
        schema=["dataset", "level", "stamp"],
        orient="row",
    )
    table = compute_results(pl.concat(tests.values()), str(facts.get("selection", "iid"))).join(
        keys, on=["dataset", "level"], maintain_order="left"
    )
    run.write_results(table)
    run.write_record(
        {
            "command": ["fmsd train", "-m", "data=ff"],
            "stamps": stamps,
            "selection": facts.get("selection", "iid"),
            "seconds": 90.0,
        }
        | {
            "trainable": 1_500,
            "parameters": 30_000,
            "device": "cpu",
            "processes": 1,
            "versions": {"fmsd": "0"},
            "revision": "0" * 40,
        }
        | record
    )
    return run


def finished(
    folder: Path,
    overrides: Sequence[str],
    seed: int,
    inverted: Sequence[str] = (),
    datasets: Sequence[str] = ("ff", "celeb"),
    facts: Mapping[str, Any] | None = None,
    shift: float = 1.0,
    **record: Any,
) -> Run:
    """The folder of a run that was tested."""
    tests = {
        dataset: frames(dataset, inverted, seed + 10 * len(inverted), shift) for dataset in datasets
    }
    return written(
        Run(folder),
        tests,
        facts or {},
        {"overrides": [*overrides, f"seed={seed}"], "seed": seed} | record,
    )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of a specialist that is inverted on one forgery, and a merge that was tested on one
    dataset.
    """
    for seed in (0, 1):
        finished(
            tmp_path / "runs" / f"swap{seed}",
            ["data=ff", "data.domains=[swap]"],
            seed,
            inverted=("puppet",),
        )
    finished(
        tmp_path / "runs" / "merge",
        ["data=ff", "merger=average"],
        0,
        datasets=("ff",),
        merged=["swap0", "swap1"],
    )
    return tmp_path / "runs"


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    """Two methods, two seeds each, tested on the training dataset and on two others."""
    for seed in (0, 1):
        for method, shift in {"fmsd": 2.0, "lora": 0.3}.items():
            folder = tmp_path / "runs" / f"{method}{seed}"
            finished(
                folder, [f"method={method}"], seed, datasets=("ff", "celeb", "dfdc"), shift=shift
            )
    return tmp_path / "runs"


def lines(text: str) -> list[list[str]]:
    """The cells of the first Markdown table in a text."""
    return [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_by_domain_a_column_is_a_forgery_and_inverted_ones_are_flagged(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tidy = report(runs, out=tmp_path / "out", by="domain")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "domains.csv",
        "domains.md",
        "domains.png",
        "domains.tex",
    ]
    assert pl.read_csv(tmp_path / "out" / "domains.csv").equals(tidy)
    assert tidy.columns == [
        "dataset",
        "domain",
        "level",
        "metric",
        "value",
        "n_frames",
        "n_videos",
        "n_real_videos",
        "run",
        "seed",
        "low",
        "high",
    ]
    text = (tmp_path / "out" / "domains.md").read_text()
    printed = capsys.readouterr().out
    assert printed.count("data.domains=[swap]") == printed.count("(inverted)") == 2
    for level, part in zip(("frame", "video"), text.split("## ")[1:], strict=True):
        header, _, merge, swap = lines(part)
        assert part.startswith(f"AUC per {level}")
        assert set(header[1:]) == {"celeb/synthesis", "ff/swap", "ff/puppet"}
        assert (merge[0], swap[0]) == ("merger=average", "data.domains=[swap]")
        assert merge[header.index("celeb/synthesis")] == "-"
        assert "±" not in "".join(merge)
        assert [name for name, cell in zip(header, swap, strict=True) if "(inverted)" in cell] == [
            "ff/puppet"
        ]
        expected, samples = [], []
        for seed in (0, 1):
            own = with_scores(frames("ff", ("puppet",), seed + 10)).filter(
                pl.col("domain") != "swap"
            )
            table = own if level == "frame" else aggregate_videos(own)
            expected.append(roc_auc_score(table["label"], table["score"]))
            samples.append(
                resample_metrics(own.drop("score"), ["auc"], level, 1000, zlib.crc32(b"ff/puppet"))[
                    "auc"
                ]
            )
        low, high = percentile_interval((samples[0] + samples[1]) / 2)
        numbers = (
            f"{np.mean(expected):.3f} ± {np.std(expected, ddof=1):.3f} [{low:.3f}, {high:.3f}]"
        )
        assert swap[header.index("ff/puppet")] == f"{numbers} (inverted)"
        ends = (
            tidy.filter(
                dataset="ff",
                domain="puppet",
                level=level,
                metric="auc",
                run="data.domains=[swap]",
                seed=0,
            )
            .select("low", "high")
            .row(0)
        )
        assert ends == pytest.approx(percentile_interval(samples[0]))


def test_the_picture_shows_the_means_of_videos(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw = [], merges.plot_domain_matrix
    monkeypatch.setattr(
        merges, "plot_domain_matrix", lambda *arguments: drawn.append(arguments) or draw(*arguments)
    )
    tidy = report(runs, out=tmp_path / "out", by="domain").filter(level="video", metric="auc")
    ((rows, columns, values, metric, inverted),) = drawn
    assert metric == "AUC"
    assert inverted == [(1, columns.index("ff/puppet"))]
    assert rows == ["merger=average", "data.domains=[swap]"]
    for row, label in enumerate(rows):
        for column, name in enumerate(columns):
            dataset, domain = name.split("/")
            found = tidy.filter(run=label, dataset=dataset, domain=domain)["value"]
            np.testing.assert_allclose(values[row][column], found.mean() if len(found) else np.nan)
    with Image.open(tmp_path / "out" / "domains.png") as image:
        assert image.format == "PNG"
    report(runs, "eer", out=tmp_path / "eer", by="domain")
    assert drawn[1][3] == "Equal error rate"


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


def test_every_number_is_scikit_learns(runs: Path, tmp_path: Path) -> None:
    tidy = report(runs, out=tmp_path / "out", resamples=50)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html",
        "results.csv",
        "results.md",
        "results.tex",
    ]
    kept = pl.read_csv(tmp_path / "out" / "results.csv")
    assert (
        kept.columns
        == tidy.columns
        == [
            *compute_results(frames("ff", (), 0), "iid").columns,
            "stamp",
            "run",
            "seed",
            "settings",
            "low",
            "high",
        ]
    )
    for seed in (0, 1):
        table = aggregate_videos(with_scores(frames("ff", ("puppet",), seed + 10)))
        own = kept.filter(run="data.domains=[swap]", seed=seed, dataset="ff", level="video")
        oracles = {"auc": roc_auc_score, "brier": brier_score_loss}
        for metric, oracle in oracles.items():
            assert own.filter(metric=metric)["value"].item() == pytest.approx(
                oracle(table["label"], table["score"]), abs=1e-12
            )
        assert (
            own.filter(metric="brier")["low"].item() is None
        )  # only the metric that is shown has intervals
        low, value, high = own.filter(metric="auc").select("low", "value", "high").row(0)
        assert low < value < high
    text = (tmp_path / "out" / "results.md").read_text()
    value = tidy.filter(run="merger=average", dataset="ff", level="frame", metric="auc")[
        "value"
    ].item()
    merge = lines(text)[2]
    assert merge[0] == "merger=average"
    assert re.fullmatch(rf"\*\*{value:.3f}\*\* \[0\.\d+, \d\.\d+\]", merge[1])
    assert merge[2] == "-"
    assert text.count("±") == 2 * 2 + 2  # two rows of numbers with seeds, and the captions say so
    report(runs, "eer", out=tmp_path / "eer", resamples=0)
    assert "(inverted)" not in (tmp_path / "eer" / "results.md").read_text()  # low is good
    assert "lower is better" in (tmp_path / "eer" / "results.md").read_text()
    finished(tmp_path / "upside" / "down", [], 0, inverted=("swap", "puppet"), datasets=("ff",))
    for resamples, count in ((50, 2), (0, 0)):  # without an interval nothing is claimed
        report(tmp_path / "upside", out=tmp_path / "inverted", resamples=resamples)
        assert (tmp_path / "inverted" / "results.md").read_text().count("(inverted)") == count


def test_the_interval_of_a_row_is_that_of_its_mean_over_seeds(
    methods: Path, tmp_path: Path
) -> None:
    report(methods, out=tmp_path / "out", resamples=200)
    header, _, *rows = lines((tmp_path / "out" / "results.md").read_text().split("## ")[2])
    cell = next(row for row in rows if row[0] == "method=fmsd")[header.index("ff")]
    samples = [
        resample_metrics(frames("ff", (), seed, 2.0), ["auc"], "video", 200, zlib.crc32(b"ff"))[
            "auc"
        ]
        for seed in (0, 1)
    ]
    low, high = percentile_interval((samples[0] + samples[1]) / 2)
    assert cell.endswith(f"[{low:.3f}, {high:.3f}]")


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["auc", "eer"])
def test_the_best_of_a_column_is_bold_and_the_unseen_datasets_have_a_mean(
    methods: Path, tmp_path: Path, metric: str
) -> None:
    tidy = report(methods, metric, out=tmp_path / "out", resamples=0)
    header, _, *rows = lines((tmp_path / "out" / "results.md").read_text().split("## ")[2])
    assert header[1:] == ["ff", "celeb", "dfdc", UNSEEN]  # trained on ff
    for row in rows:
        assert all(cell.startswith("**") == (row[0] == "method=fmsd") for cell in row[1:])
        own = tidy.filter(run=row[0], metric=metric, level="video").filter(
            pl.col("dataset") != "ff"
        )
        means = [own.filter(seed=seed)["value"].mean() for seed in (0, 1)]
        assert row[-1].replace("*", "") == f"{np.mean(means):.3f} ± {np.std(means, ddof=1):.3f}"
    shutil.rmtree(methods / "lora0")
    finished(methods / "lora0", ["method=lora"], 0, datasets=("ff", "celeb"))
    report(methods, metric, out=tmp_path / "fewer", resamples=0)
    assert UNSEEN not in (tmp_path / "fewer" / "results.md").read_text()


@pytest.mark.slow
def test_the_datasets_that_some_row_was_trained_on_have_a_mean_of_their_own(
    methods: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        finished(methods / f"other{seed}", ["method=other"], seed, facts={"train": {"celeb": "2"}})
    tidy = report(methods, out=tmp_path / "out", resamples=0, differ=["train"])
    header, _, *rows = lines((tmp_path / "out" / "results.md").read_text().split("## ")[2])
    assert SEEN in header
    assert UNSEEN not in header  # dfdc alone
    own = tidy.filter(run="method=other", metric="auc", level="video").filter(
        pl.col("dataset").is_in(["ff", "celeb"])
    )
    row = next(row for row in rows if row[0] == "method=other")
    assert row[header.index(SEEN)].replace("*", "").startswith(f"{own['value'].mean():.3f} ±")


@pytest.mark.slow
def test_the_difference_from_a_row_is_paired(methods: Path, tmp_path: Path) -> None:
    finished(methods / "other", ["method=probe"], 0, datasets=("ff",), facts={"manifest": "others"})
    with pytest.raises(
        InputError,
        match="against=method is several rows; name one of method=fmsd; method=lora; method=probe",
    ):
        report(methods, against="method", differ=["manifest"])
    report(methods, out=tmp_path / "out", against="fmsd", differ=["manifest"], resamples=300)
    parts = (tmp_path / "out" / "results.md").read_text().split("## ")
    means = {row[0]: float(re.findall(r"\d\.\d+", row[1])[0]) for row in lines(parts[2])[2:]}
    title, (header, _, *rows) = parts[4].splitlines()[0], lines(parts[4])
    assert title == "AUC per video minus that of method=fmsd"
    assert header[1] == "ff"
    assert [row[0] for row in rows] == ["method=lora", "method=probe"]
    value, low, high = map(float, re.findall(r"[-+]?\d\.\d{3}(?=[ ,\]])", rows[0][1])[:3])
    assert value == pytest.approx(means["method=lora"] - means["method=fmsd"], abs=1.1e-3)
    assert low <= value <= high < 0
    assert re.search(r"p = 0\.00[67]", rows[0][1])  # 2 of 301
    assert set(rows[1][1:]) == {"-"}  # not the same videos


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


def test_the_oracle_is_named_in_its_rows(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(runs / "oracle", ["data=ff", "method=best"], 0, facts={"selection": "oracle"})
    report(runs, differ=["selection"])
    assert "method=best (oracle)" in capsys.readouterr().out


def evaluation(
    run: Path,
    name: str,
    dataset: str,
    seed: int,
    when: int,
    corruptions: bool = False,
    **facts: Any,
) -> Run:
    """A later test of a run."""
    record = json.loads((run / "run.json").read_text())
    found = written(
        Run(run / "evaluations" / name),
        {dataset: frames(dataset, (), seed)},
        facts,
        record | {"run": str(run), "stamps": {}},
    )
    record["stamps"] = stamped([dataset], **facts)
    time = datetime.fromtimestamp(when, UTC).isoformat()
    found.write_record(record | {"run": str(run), "time": time})
    if corruptions:
        clean = found.results().with_columns(corruption=pl.lit("none"), severity=pl.lit(0))
        worse = [
            clean.with_columns(
                value=pl.col("value") - 0.05 * severity,
                corruption=pl.lit(corruption),
                severity=pl.lit(severity),
            )
            for corruption in ("jpeg", "blur")
            for severity in (1, 3, 5)
        ]
        found.write("corruptions.csv", pl.concat([clean, *worse]).write_csv())
    return found


def test_evaluations_add_the_datasets_that_a_run_lacks_the_newest_first(
    runs: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    evaluation(runs / "merge", "old", "celeb", 1, 1_000)
    evaluation(runs / "merge", "new", "celeb", 2, 2_000)
    evaluation(runs / "merge", "again", "ff", 3, 3_000)
    tidy = report(runs).filter(run="merger=average", level="frame", metric="auc")
    assert tidy["dataset"].to_list() == ["ff", "celeb"]
    expected = [
        compute_results(frames(dataset, (), seed), "")
        .filter(level="frame", metric="auc")["value"]
        .item()
        for dataset, seed in (("ff", 0), ("celeb", 2))
    ]
    assert tidy["value"].to_list() == pytest.approx(expected)
    moved = tmp_path / "moved"
    shutil.move(runs / "merge" / "evaluations", moved)
    alone = report(moved).filter(
        level="frame", metric="auc"
    )  # without a trained run these are the rows
    assert sorted(alone["dataset"]) == ["celeb", "ff"]
    shutil.move(moved, runs / "swap0" / "far")
    record = json.loads((runs / "swap0" / "far" / "old" / "run.json").read_text())
    for name in ("old", "new", "again"):
        (runs / "swap0" / "far" / name / "run.json").write_text(
            json.dumps(record | {"run": str(tmp_path / "elsewhere")})
        )
    shutil.move(runs / "swap0" / "far", runs / "far")
    report(runs)
    assert "3 evaluations are left out, as the runs they test are not below" in caplog.text


def test_trainings_and_merges_that_vary_the_same_words_are_told_apart(tmp_path: Path) -> None:
    for size in (64, 96):
        finished(tmp_path / f"full{size}", ["method=full", f"size={size}"], 0)
        finished(tmp_path / f"r2m{size}", ["merger=r2m", f"size={size}"], 0, merged=["a", "b"])
    found = {
        "method=full size=64",
        "method=full size=96",
        "merger=r2m size=64",
        "merger=r2m size=96",
    }
    assert set(report(tmp_path)["run"]) == found
    finished(tmp_path / "other", ["merger=ties", "size=64"], 0, merged=["a", "b"])
    merges = {name for name in found if name.startswith("merger")}
    assert set(report(tmp_path)["run"]) == {"size=64", "size=96", *merges, "merger=ties size=64"}
    shutil.rmtree(tmp_path / "full96")
    shutil.rmtree(tmp_path / "r2m96")
    assert set(report(tmp_path)["run"]) == {"method=full", "merger=r2m", "merger=ties"}


def test_a_merge_may_have_no_seed(runs: Path, tmp_path: Path) -> None:
    record = json.loads((runs / "merge" / "run.json").read_text())
    (runs / "merge" / "run.json").write_text(json.dumps(record | {"seed": None}))
    assert set(report(runs, by="domain")["seed"]) == {None, 0, 1}
    tidy = report(runs, out=tmp_path / "out", resamples=20)
    assert set(tidy["seed"]) == {None, 0, 1}
    assert tidy.filter(pl.col("seed").is_null(), metric="auc")["low"].null_count() == 0


def test_latex_is_balanced_and_escaped(runs: Path, tmp_path: Path) -> None:
    finished(runs / "odd", ["data=ff", "[x_1] & 50% $y$ #1 {z} a\\b ~ ^ <"], 0)
    report(runs, out=tmp_path / "out", against="average", resamples=20)
    text = (tmp_path / "out" / "results.tex").read_text()
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == 4
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)  # without what is escaped
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert re.findall(r"(?<!\\)#", text) == []
    assert [line for line in text.splitlines() if re.search(r"(?<!\\)%", line)] == [
        "% needs \\usepackage{booktabs}"
    ]
    for table in text.split("\\begin{table}")[1:]:
        columns = len(re.findall(r"\{(lr+)\}", table)[0])
        body = table[table.index("\\toprule") : table.index("\\bottomrule")]
        rows = [line for line in body.splitlines() if line.endswith("\\\\")]
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {columns}
        assert not any(row.lstrip().startswith("[") for row in rows)
    assert f"{{}}{escape_latex('[x_1] & 50% $y$ #1 {z} a')}" in text
    assert escape_latex("a\\b_c ~") == r"a\textbackslash{}b\_c \textasciitilde{}"


@pytest.mark.slow
def test_the_command_and_what_it_refuses(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "report",
                "runs=runs",
                "out=tables",
                "against=average",
                "differ=[augment]",
                "resamples=20",
            ]
        )
        == 0
    )
    assert (tmp_path / "tables" / "report.html").is_file()
    for words, sentence in {
        ("by=colour",): "by=colour is unknown; choose one of dataset, domain.",
        ("metric=f1",): "metric=f1 is unknown; choose one of acc, ap, auc",
        ("against=average", "resamples=0"): "resamples=0 leaves nothing to compare by; give 1000.",
        (
            "against=average",
            "by=domain",
        ): "against= compares whole datasets; leave it out, or set by=dataset.",
        ("out=runs/merge",): "out=runs/merge is the folder of a run",
    }.items():
        capsys.readouterr()
        assert main(["report", "runs=runs", *words]) == 2
        assert sentence in capsys.readouterr().err


def test_predictions_that_the_numbers_do_not_follow_from_are_told(runs: Path) -> None:
    path = runs / "merge" / "predictions" / "ff.parquet"
    whole = pl.read_parquet(path)
    broken = {
        "rows": whole.head(-1),
        "dataset": whole.with_columns(dataset=pl.lit("celeb")),
        "null": whole.with_columns(logit=pl.when(pl.col("index") > 0).then("logit")),
        "infinite": whole.with_columns(logit=pl.lit(float("inf"))),
    }
    for table in broken.values():
        table.write_parquet(path)
        with pytest.raises(
            InputError,
            match=r"ff\.parquet does not hold a finite logit of each of the 108 frames of ff",
        ):
            report(runs, by="domain")
    whole.with_columns(-pl.col("logit")).write_parquet(path)
    with pytest.raises(
        InputError,
        match=r"ff\.parquet does not hold the predictions behind the results beside it "
        r"\(auc per frame 0\.",
    ):
        report(runs, by="domain")


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


def test_a_mean_over_fewer_seeds_says_so_and_is_not_the_best(methods: Path, tmp_path: Path) -> None:
    shutil.rmtree(methods / "fmsd1")
    finished(methods / "fmsd1", ["method=fmsd"], 1, datasets=("ff", "celeb"), shift=2.0)
    report(methods, out=tmp_path / "out", resamples=0)
    header, _, *rows = lines((tmp_path / "out" / "results.md").read_text().split("## ")[2])
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert re.fullmatch(r"[01]\.\d{3} \(1 seed\)", cells["method=fmsd"]["dfdc"])
    assert (
        "**" not in cells["method=fmsd"]["dfdc"] + cells["method=lora"]["dfdc"]
    )  # of full rows there is only one
    assert cells["method=fmsd"]["ff"].startswith("**")
    assert "seed" not in cells["method=fmsd"]["ff"] + cells["method=lora"]["dfdc"]


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
    report(methods, out=tmp_path / "out", against="fmsd", differ=["naming"], resamples=20)
    header, _, *rows = lines((tmp_path / "out" / "results.md").read_text().split("## ")[4])
    differences = {row[0]: row[header.index("ff")] for row in rows}
    assert differences["method=probe"] == "-"
    assert differences["method=lora"] != "-"
    assert (
        "<sup>b</sup>" not in (tmp_path / "out" / "results.md").read_text().split("## ")[4]
    )  # no cell of the differences bears it


@pytest.mark.slow
def test_robustness_is_a_mean_over_the_severities_that_all_runs_have(
    methods: Path, tmp_path: Path
) -> None:
    for method in ("fmsd", "lora"):
        found = evaluation(methods / f"{method}0", "stress", "celeb", 3, 5_000, corruptions=True)
        if method == "lora":
            path = found.folder / "corruptions.csv"
            table = pl.read_csv(path).filter(
                (pl.col("severity") < 5)
                & ((pl.col("corruption") != "blur") | (pl.col("severity") == 2))
            )
            table = pl.concat(
                [
                    table,
                    table.filter(corruption="jpeg", severity=3).with_columns(
                        severity=pl.lit(4, pl.Int64), value=pl.lit(0.0)
                    ),
                ]
            )
            table.write_csv(path)
    late = evaluation(methods / "lora0", "later", "celeb", 3, 9_000, corruptions=True)
    pl.read_csv(late.folder / "corruptions.csv").filter(pl.col("severity") < 2).write_csv(
        late.folder / "corruptions.csv"
    )
    report(methods, out=tmp_path / "out", resamples=0)
    text = (tmp_path / "out" / "report.html").read_text()
    part = text[text.index('<section id="robustness">') :].partition("</section>")[0]
    assert "Mean over the severities that all runs have" in part
    assert "jpeg: 1, 3; blur: 1." in part
    clean = (
        compute_results(frames("celeb", (), 3), "")
        .filter(level="video", metric="auc")["value"]
        .item()
    )
    for row in re.findall(r"<tr>.*?</tr>", part)[1:]:
        values = [float(value) for value in re.findall(r'data-value="([^"]*)"', row)]
        assert values == pytest.approx([clean, clean - 0.1, clean - 0.05], abs=1e-5)


def test_the_newest_evaluation_counts_by_its_time_and_shadowed_ones_are_told(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seed, when, time in (
        ("copied", 1, 9_000, "2026-01-01T00:00:00+00:00"),
        ("new", 2, 1_000, "2026-02-01T00:00:00+00:00"),
    ):
        found = evaluation(runs / "merge", name, "celeb", seed, when)
        found.write_record(found.record() | {"time": time})
    evaluation(runs / "merge", "large", "ff", 3, 3_000, size=448)
    tidy = report(runs).filter(run="merger=average", level="frame", metric="auc", dataset="celeb")
    assert tidy["value"].item() == pytest.approx(
        compute_results(frames("celeb", (), 2), "")
        .filter(level="frame", metric="auc")["value"]
        .item()
    )
    merge = runs / "merge"
    assert "copied" not in caplog.text  # it was tested by the same protocol
    assert (
        f"{merge / 'evaluations/large'} was tested on ff, too, but the results of {merge} count "
        "(they differ in size)." in caplog.messages
    )


@pytest.mark.slow
def test_damaged_files_are_told_in_one_sentence(runs: Path, tmp_path: Path) -> None:
    merge = runs / "merge"
    record = json.loads((merge / "run.json").read_text())
    facts = {
        stamp: {name: fact for name, fact in own.items() if name != "naming"}
        for stamp, own in record["stamps"].items()
    }
    (merge / "explanations").mkdir()
    stress = "dataset,level,metric,value,n_frames,selection\nff,video,auc,0.5,9,iid\n"
    damages = {
        "run.json": {
            "{": "is no JSON",
            "[]": "is no JSON object",
            json.dumps(
                {key: value for key, value in record.items() if key != "overrides"}
            ): "lacks overrides",
            json.dumps(record | {"stamps": facts}): "has a stamp without naming",
        },
        "results.csv": {
            "": "does not hold a run's results",
            "a,b\n1,2\n": "does not hold",
            "dataset,level,metric,value\nff,video,auc,high\n": "does not",
        },
        "corruptions.csv": {stress: "does not hold a run's results"},
        "mask.json": {
            "nothing": "does not hold what a run writes there",
            "{}": "does not hold",
            "[1]": "does not hold",
        },
        "spectra.json": {'{"layers": 3}': "does not hold what a run writes there"},
        "explanations/a.png": {"nothing": "is no picture"},
        "config.yaml": {
            "{": "is no configuration",
            "a: &a [1]\nb: [*a, *a]": "has the YAML alias *a",
            "a: !!python/name:os.system": "has the YAML tag",
        },
    }
    for name, texts in damages.items():
        before = (merge / name).read_bytes() if (merge / name).exists() else None
        for text, sentence in texts.items():
            (merge / name).write_text(text)
            with pytest.raises(InputError) as told:
                report(runs, out=tmp_path / "out", resamples=0)
            assert sentence in str(told.value)
            assert str(merge / name) in str(told.value)
        if before is None:
            (merge / name).unlink()
        else:
            (merge / name).write_bytes(before)
    report(runs, out=tmp_path / "out", resamples=0)


def test_a_refusal_names_all_facts_of_the_column(runs: Path) -> None:
    finished(runs / "other", ["method=lora"], 0, facts={"size": 256}, datasets=("ff",))
    finished(runs / "third", ["method=probe"], 0, facts={"crops": 1.3}, datasets=("ff",))
    with pytest.raises(InputError, match=r"differ='\[crops,size\]'"):
        report(runs)


def test_markdown_shows_labels_as_they_are(tmp_path: Path) -> None:
    for label in ("note=<b>|\n  x", "plain"):
        finished(tmp_path / "runs" / label[:4], [label], 0, datasets=("ff",))
    report(tmp_path / "runs", out=tmp_path / "out", resamples=0)
    assert "| note=&lt;b>\\| x |" in (tmp_path / "out" / "results.md").read_text()


def test_a_runs_own_page_has_no_intervals_and_claims_nothing_of_inversions(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [], 0, inverted=("swap", "puppet"), datasets=("ff", "celeb"))
    text = (run.folder / "results.md").read_text()
    (frame, video) = lines(text.partition("## ap")[0])[2:]
    for level, row in (("frame", frame), ("video", video)):
        values = [
            run.results().filter(metric="auc", level=level, dataset=dataset)["value"].item()
            for dataset in ("ff", "celeb")
        ]
        assert row == [level, *(f"{value:.4f}" for value in values)]
        assert values[0] < 0.5 < values[1]
    assert "inverted" not in text
    assert "ff 12 real, 24 fake videos; celeb 12 real, 12 fake videos." in text


def test_thresholds_are_those_of_the_folder_that_the_numbers_lie_in(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "without", ["method=a"], 0)
    run = finished(tmp_path / "runs" / "with", ["method=b"], 0)
    found = evaluation(run.folder, "later", "dfdc", 1, 1_000)
    thresholds = {"frame": 0.7, "video": 0.6}
    stamps = found.results().select("dataset", "level", "stamp").unique()
    measured = compute_results(frames("dfdc", (), 1), "iid", thresholds=thresholds)
    found.write_results(measured.join(stamps, on=["dataset", "level"], maintain_order="left"))
    found.write_record(found.record() | {"thresholds": thresholds})
    for by in ("dataset", "domain"):
        tidy = report(tmp_path / "runs", "acc_val", out=tmp_path / "out", by=by, resamples=20)
        assert set(tidy.filter(metric="acc_val")["dataset"]) == {"dfdc"}
