"""The tables of a report: numbers, intervals, means, marks and formats."""

import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from fmsd.errors import InputError
from fmsd.metrics.interval import percentile_interval, resample_metrics
from fmsd.metrics.table import compute_results, with_scores
from fmsd.metrics.video import aggregate_videos
from fmsd.report.columns import SEEN, UNSEEN
from fmsd.report.markup import escape_latex
from fmsd.runs.folder import Run
from fmsd.tasks.report import report
from tests.runs import finished, frames, lines, method_runs, specialist_runs, written


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return specialist_runs(tmp_path / "runs")


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    return method_runs(tmp_path / "runs")


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
        "n_expected",
        "n_scored",
        "run",
        "seed",
        "low",
        "high",
    ]
    text = (tmp_path / "out" / "domains.md").read_text()
    printed = capsys.readouterr().out
    assert printed.count("forgeries swap") == printed.count("(inverted)") == 2
    for level, part in zip(("frame", "video"), text.split("## ")[1:], strict=True):
        header, _, merge, swap = lines(part)
        assert part.startswith(f"AUC per {level}")
        assert set(header[1:]) == {"celeb/synthesis", "ff/swap", "ff/puppet"}
        assert (merge[0], swap[0]) == ("average of swap0 + swap1", "forgeries swap")
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
                run="forgeries swap",
                seed=0,
            )
            .select("low", "high")
            .row(0)
        )
        assert ends == pytest.approx(percentile_interval(samples[0]))


def test_every_number_is_scikit_learns(runs: Path, tmp_path: Path) -> None:
    tidy = report(runs, out=tmp_path / "out", resamples=50)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "references.bib",
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
            "pixels",
            "overlap",
            "run",
            "seed",
            "settings",
            "overrides",
            "low",
            "high",
        ]
    )
    for seed in (0, 1):
        table = aggregate_videos(with_scores(frames("ff", ("puppet",), seed + 10)))
        own = kept.filter(run="forgeries swap", seed=seed, dataset="ff", level="video")
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
    value = tidy.filter(run="average of swap0 + swap1", dataset="ff", level="frame", metric="auc")[
        "value"
    ].item()
    merge = lines(text)[2]
    assert merge[0] == "average of swap0 + swap1"
    assert lines(text)[0][1:] == ["celeb", "ff"]  # the unseen dataset before the seen one
    assert re.fullmatch(rf"\*\*{value:.3f}\*\* \[0\.\d+, \d\.\d+\]", merge[2])
    assert merge[1] == "-"
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
    cell = next(row for row in rows if row[0] == "fmsd")[header.index("ff")]
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
    assert header[1:] == [UNSEEN, "celeb", "dfdc", "ff"]  # trained on ff
    for row in rows:
        assert all(cell.startswith("**") == (row[0] == "fmsd") for cell in row[1:])
        own = tidy.filter(run=row[0], metric=metric, level="video").filter(
            pl.col("dataset") != "ff"
        )
        means = [own.filter(seed=seed)["value"].mean() for seed in (0, 1)]
        assert row[1].replace("*", "") == f"{np.mean(means):.3f} ± {np.std(means, ddof=1):.3f}"
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
    own = tidy.filter(run="other", metric="auc", level="video").filter(
        pl.col("dataset").is_in(["ff", "celeb"])
    )
    row = next(row for row in rows if row[0] == "other")
    assert row[header.index(SEEN)].replace("*", "").startswith(f"{own['value'].mean():.3f} ±")


@pytest.mark.slow
def test_the_difference_from_a_row_is_paired(methods: Path, tmp_path: Path) -> None:
    others = frames("ff", (), 0).with_columns(compression=pl.lit("c23"))
    record = {"overrides": ["method=probe", "seed=0"], "seed": 0}
    written(Run(methods / "other"), {"ff": others}, {}, record)
    with pytest.raises(
        InputError,
        match="against=method is several rows; name one of fmsd; lora; probe",
    ):
        report(methods, against="method", differ=["manifest"])
    report(methods, out=tmp_path / "out", against="fmsd", differ=["manifest"], resamples=300)
    parts = (tmp_path / "out" / "results.md").read_text().split("## ")
    column = lines(parts[2])[0].index("ff")
    means = {row[0]: float(re.findall(r"\d\.\d+", row[column])[0]) for row in lines(parts[2])[2:]}
    title, (header, _, *rows) = parts[4].splitlines()[0], lines(parts[4])
    assert title == "AUC per video minus that of fmsd"
    column = header.index("ff")
    assert [row[0] for row in rows] == ["lora", "probe"]
    value, low, high = map(
        float, re.findall(r"[-+]?\d\.\d{3}(?=[ ,\]])", rows[0][column].replace("*", ""))[:3]
    )
    assert value == pytest.approx(means["lora"] - means["fmsd"], abs=1.1e-3)
    assert low <= value <= high < 0
    assert re.search(r"p = 0\.00[67]", rows[0][column])  # 2 of 301
    assert set(rows[1][1:]) == {"-"}  # not the same videos


def test_the_oracle_is_named_in_its_rows(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(runs / "oracle", ["data=ff", "method=best"], 0, facts={"selection": "oracle"})
    report(runs, differ=["selection"])
    assert "best (oracle)" in capsys.readouterr().out


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


def test_a_mean_over_fewer_seeds_says_so_and_is_not_the_best(methods: Path, tmp_path: Path) -> None:
    shutil.rmtree(methods / "fmsd1")
    finished(methods / "fmsd1", ["method=fmsd"], 1, datasets=("ff", "celeb"), shift=2.0)
    report(methods, out=tmp_path / "out", resamples=0)
    header, _, *rows = lines((tmp_path / "out" / "results.md").read_text().split("## ")[2])
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert re.fullmatch(r"[01]\.\d{3} \(1 seed\)", cells["fmsd"]["dfdc"])
    assert (
        "**" not in cells["fmsd"]["dfdc"] + cells["lora"]["dfdc"]
    )  # of full rows there is only one
    assert cells["fmsd"]["ff"].startswith("**")
    assert "seed" not in cells["fmsd"]["ff"] + cells["lora"]["dfdc"]


def test_markdown_shows_labels_as_they_are(tmp_path: Path) -> None:
    for label in ("note=<b>|\n  x", "plain"):
        finished(tmp_path / "runs" / label[:4], [label], 0, datasets=("ff",))
    report(tmp_path / "runs", out=tmp_path / "out", resamples=0)
    assert "| note &lt;b>\\| x |" in (tmp_path / "out" / "results.md").read_text()
