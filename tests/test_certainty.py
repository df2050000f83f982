"""What a report claims, it can: no interval, p-value or mark from a handful of videos, none that
the interval does not bear out.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fmsd.metrics.interval import MIN_VIDEOS, enough_videos, holm_correction
from fmsd.metrics.layout import format_video_counts
from fmsd.metrics.table import compute_results
from fmsd.report.columns import UNSEEN
from fmsd.report.comparability import ColumnNotes
from fmsd.report.markup import latex_tables, markdown_tables
from fmsd.report.tables import CHANCE, LOWER_IS_BETTER, results_table
from fmsd.runs.folder import Run
from fmsd.tasks.report import report
from tests.runs import CORRUPTIONS, evaluation, finished, frames, lines, written

INTERVAL = re.compile(r"\[[-+]?\d\.\d{3}, [-+]?\d\.\d{3}\]")
CHANCES = re.compile(r"\bp ?(=|<|&lt;|\$<\$) ?\d")


def few(table: pl.DataFrame, real: int, fake: int = 12) -> pl.DataFrame:
    """The frames of so many real videos, and of so many of each forgery."""
    number = pl.col("video").str.extract(r"(\d+)$").cast(pl.Int64)
    return table.filter(number < pl.when(pl.col("label") == 0).then(real).otherwise(fake))


def run_on(folder: Path, tests: Mapping[str, pl.DataFrame], override: str) -> Run:
    """The folder of a run with such predictions."""
    return written(Run(folder), tests, {}, {"overrides": [override, "seed=0"], "seed": 0})


def methods(folder: Path, real: int, fake: int) -> Path:
    """Two methods on a dataset of so many real videos and so many of its one forgery; the second is
    inverted.
    """
    for method, shift, inverted in (("good", 3.0, ()), ("bad", 1.0, ("synthesis",))):
        own = few(frames("celeb", inverted, 1, shift), real, fake)
        run_on(folder / method, {"celeb": own}, f"method={method}")
    evaluation(
        folder / "good",
        "stress",
        "celeb",
        3,
        5_000,
        corruptions=CORRUPTIONS,
        keep=lambda table: few(table, real, fake),
    )
    return folder


def outputs(
    runs: Path, out: Path, capsys: pytest.CaptureFixture[str], by: str = "dataset"
) -> dict[str, str]:
    """All that a report says, by where it says it."""
    capsys.readouterr()
    report(runs, out=out, by=by, against="good" if by == "dataset" else None, resamples=100)
    name = {"dataset": "results", "domain": "domains"}[by]
    files = {kind: (out / f"{name}.{kind}").read_text() for kind in ("md", "tex", "csv")}
    if by == "dataset":
        files["html"] = (out / "report.html").read_text()
    return files | {"terminal": " ".join(capsys.readouterr().out.split())}


@pytest.mark.parametrize("by", ["dataset", "domain"])
@pytest.mark.parametrize(
    ("real", "fake"), [(1, 12), (12, 1), (MIN_VIDEOS - 1, MIN_VIDEOS - 1), (MIN_VIDEOS, MIN_VIDEOS)]
)
def test_a_handful_of_videos_gives_no_interval_no_p_and_no_mark(
    real: int, fake: int, by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, enough = (
        outputs(methods(tmp_path / "runs", real, fake), tmp_path / "out", capsys, by),
        min(real, fake) >= MIN_VIDEOS,
    )
    assert enough_videos(real, fake) == enough
    for kind, text in said.items():
        if kind == "csv":
            continue
        plain = (
            re.sub(r"<[^>]*>", " ", text.partition("<main>")[2])
            if kind == "html"
            else text.replace("$-$", "-")
        )
        assert bool(INTERVAL.search(plain)) == enough, kind
        if by == "dataset":
            assert bool(CHANCES.search(plain)) == enough, kind
        assert ("inverted" in plain.replace("inverted (", "")) == enough, kind
        assert ("[-]" in plain) == (not enough), kind
        counts = " and ".join(
            f"{count} {what}"
            for count, what in ((real, "real"), (fake, "fake"))
            if count < MIN_VIDEOS
        )
        column = "celeb" if by == "dataset" else "celeb/synthesis"
        assert (
            f"No interval, p-value or mark under {MIN_VIDEOS} videos of a class: {column} has "
            f"{counts}." in plain
        ) == (not enough), kind
        assert f"{real} real, {fake} fake" in plain, kind
    assert ("**" in said["md"]) == ("\\textbf" in said["tex"]) == enough
    table = pl.read_csv(
        tmp_path / "out" / ("results.csv" if by == "dataset" else "domains.csv")
    ).filter(metric="auc")
    assert table["low"].is_null().all() == table["high"].is_null().all() == (not enough)
    assert set(table["n_real_videos"]) == {real}


def test_a_mean_of_which_a_part_has_no_interval_has_none(tmp_path: Path) -> None:
    for method, shift in (("a", 1.0), ("b", 2.0)):
        tests = {
            "ff": frames("ff", (), 0, shift),
            "celeb": frames("celeb", (), 0, shift),
            "dfdc": few(frames("dfdc", (), 0, shift), 3),
        }
        run_on(tmp_path / "runs" / method, tests, f"method={method}")
    report(tmp_path / "runs", out=tmp_path / "out", against="method=a", resamples=50)
    parts = (tmp_path / "out" / "results.md").read_text().partition("## Papers")[0].split("## ")
    tables = [lines(part) for part in parts[1:]]
    assert len(tables) == 4
    for header, _, *rows in tables:
        for row in rows:
            cells = dict(zip(header, row, strict=True))
            assert INTERVAL.search(cells["celeb"])
            for lacks in (cells["dfdc"], cells[UNSEEN]):
                assert lacks.endswith("[-]")
                assert "*" not in lacks


def test_inverted_is_what_lies_below_chance_with_its_whole_interval(tmp_path: Path) -> None:
    for seed, shift in enumerate(np.linspace(-2, 1, 13)):
        finished(
            tmp_path / "runs" / f"{seed}", [f"x={seed}"], 0, datasets=("celeb",), shift=float(shift)
        )
    tidy = report(tmp_path / "runs", out=tmp_path / "out", resamples=100).filter(
        metric="auc", level="video"
    )
    highs = dict(tidy.select("run", "high").rows())
    _, _, *rows = lines((tmp_path / "out" / "results.md").read_text().split("## ")[2])
    assert {row[0]: "(inverted)" in row[1] for row in rows} == {
        run: high < 0.5 for run, high in highs.items()
    }
    below = tidy.filter(pl.col("value") < 0.5)
    assert (
        0 < below.filter(pl.col("high") >= 0.5).height < below.height
    )  # both kinds of numbers below 0.5 were there


@pytest.mark.parametrize("metric", ["auc", "eer", "bacc", "brier"])
def test_the_best_is_better_than_chance_and_than_another_row(metric: str) -> None:
    rng, sign = np.random.default_rng(0), -1 if metric in LOWER_IS_BETTER else 1
    bold = []
    for count in (1, 2, 3) * 20:
        values = rng.uniform(0.3, 0.62, count).round(2)
        rows = [
            (f"row {place}", 0, "d", value, 60, 30, metric, "video")
            for place, value in enumerate(values)
        ]
        schema = ["run", "seed", "dataset", "value", "n_videos", "n_real_videos", "metric", "level"]
        table = results_table(
            pl.DataFrame(rows, schema=schema, orient="row"), metric, "video", {}, {}, ColumnNotes()
        )
        top = max(sign * values)
        for value, cell in zip(values, (own["d"] for own in table.cells.values()), strict=True):
            assert cell.best == (
                count > 1 and sign * value == top and (metric not in CHANCE or top > sign * 0.5)
            )
            bold.append(cell.best)
        assert (
            markdown_tables([table]).count("**") / 2
            == latex_tables([table]).count("\\textbf")
            == sum(own["d"].best for own in table.cells.values())
        )
    assert 0 < sum(bold) < len(bold)


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 5, 6):
        for p in (
            [float(value) for value in rng.choice([0.001, 0.01, 0.02, 0.3, 1.0], count)]
            for _ in range(10)
        ):
            sets = [
                own
                for size in range(1, count + 1)
                for own in itertools.combinations(range(count), size)
            ]
            expected = [
                max(
                    min(1.0, len(own) * min(p[place] for place in own))
                    for own in sets
                    if one in own
                )
                for one in range(count)
            ]
            assert holm_correction(p) == pytest.approx(expected)


@pytest.mark.slow
def test_p_values_are_corrected_for_the_comparisons_of_a_column_and_the_caption_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shifts = {"a": 0.0, "b": 0.4, "c": 1.0, "d": 3.0}
    for method, shift in shifts.items():
        finished(
            tmp_path / "runs" / method,
            [f"method={method}"],
            0,
            datasets=("ff", "celeb"),
            shift=shift,
        )
    report(tmp_path / "runs", out=tmp_path / "all", against="method=a", resamples=100)
    together = capsys.readouterr().out
    alone = {}
    for method in "bcd":
        pair = tmp_path / "pair" / method
        for name in ("a", method):
            finished(
                pair / name, [f"method={name}"], 0, datasets=("ff", "celeb"), shift=shifts[name]
            )
        report(pair, out=tmp_path / "pairs" / method, against="method=a", resamples=100)
        alone[method] = ps(tmp_path / "pairs" / method)[method]
        assert "one comparison in a column, 2 in this table" in " ".join(
            capsys.readouterr().out.split()
        )
    found = ps(tmp_path / "all")
    for column in (0, 1):
        corrected = holm_correction([alone[row][column] for row in alone])
        assert [found[row][column] for row in alone] == pytest.approx(corrected, abs=2e-3)
    for text in (
        together,
        (tmp_path / "all" / "results.md").read_text(),
        (tmp_path / "all" / "report.html").read_text(),
    ):
        assert "corrected by Holm" in " ".join(text.split())
        assert "for the 3 comparisons of a column, of 6 in this table" in " ".join(text.split())


def ps(folder: Path) -> dict[str, list[float]]:
    """The p-values of the videos' differences by row."""
    _, _, *rows = lines((folder / "results.md").read_text().split("## ")[4])
    return {
        row[0]: [float(re.findall(r"p = (\d\.\d+)", cell)[0]) for cell in row[1:]] for row in rows
    }


def test_numbers_of_videos_stand_with_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = {"ff": frames("ff", (), 0), "celeb": few(frames("celeb", (), 0), 5, 7)}
    run_on(tmp_path / "runs" / "a", tests, "method=a")
    report(tmp_path / "runs")
    printed = " ".join(capsys.readouterr().out.split())
    assert "12 real, 24 fake videos" in printed
    assert "5 real, 7 fake videos" in printed
    assert f"under {MIN_VIDEOS} videos of a class: celeb has 5 real and 7 fake." in printed
    whole = pl.concat(
        [compute_results(own, "iid") for own in (tests["celeb"], few(tests["celeb"], 3))]
    )
    assert format_video_counts(whole) == {"celeb": "3 to 5 real, 7 fake videos"}
