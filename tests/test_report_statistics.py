"""The statistics of a report beside its metrics: equal to those of their functions."""

import re
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from fmsd.cli.main import main
from fmsd.data.frame import SCHEMA
from fmsd.errors import InputError
from fmsd.metrics.delong import auc_interval, mean_placements, paired_test, placements
from fmsd.metrics.hierarchical import resample_seeds
from fmsd.metrics.interval import holm_correction, percentile_interval, resample_metrics
from fmsd.metrics.table import with_scores
from fmsd.metrics.video import aggregate_videos
from fmsd.report.differences import with_corrected_p
from fmsd.report.sections.worst import worst_forgeries
from fmsd.report.tables import Cell
from fmsd.runs.folder import VALIDATION
from fmsd.tasks.report import report
from tests.pages import tables
from tests.runs import finished, frames, lines

DATASETS = ("ff", "celeb", "dfdc")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three seeds of one method, two of another one, with validation predictions."""
    folder = tmp_path / "runs"
    for method, seeds, shift in (("fmsd", 3, 1.6), ("lora", 2, 0.5)):
        for seed in range(seeds):
            run = finished(
                folder / f"{method}{seed}",
                [f"method={method}"],
                seed,
                datasets=DATASETS,
                shift=shift,
            )
            run.write_table(VALIDATION, frames("ff", (), 20 + seed, shift))
    return folder


def classes(dataset: str, seed: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """The scores of real and of fake videos."""
    videos = aggregate_videos(with_scores(frames(dataset, (), seed, shift))).sort("video")
    real, fake = (videos.filter(label=label)["score"].to_numpy() for label in (0, 1))
    return real, fake


def auc(real: np.ndarray, fake: np.ndarray) -> float:
    labels = np.repeat([0, 1], [len(real), len(fake)])
    return float(roc_auc_score(labels, np.concatenate([real, fake])))


def table_of(out: Path, title: str) -> tuple[list[str], dict[str, list[str]], str]:
    """Header, rows by label, and text of a table in a report's Markdown."""
    parts = (out / "results.md").read_text().split("## ")
    part = next(part for part in parts if part.startswith(f"{title}\n"))
    header, _, *rows = lines(part)
    return header, {row[0]: row[1:] for row in rows}, part


def test_seeds_and_videos_are_resampled_together_from_three_seeds_on(
    runs: Path, tmp_path: Path
) -> None:
    report(runs, out=tmp_path / "out", resamples=200)
    header, rows, text = table_of(tmp_path / "out", "AUC per video")
    place = header.index("ff") - 1
    for method, seeds, shift in (("fmsd", 3, 1.6), ("lora", 2, 0.5)):
        samples = [
            resample_metrics(
                frames("ff", (), seed, shift), ["auc"], "video", 200, zlib.crc32(b"ff")
            )
            for seed in range(seeds)
        ]
        label = next(label for label in rows if method in label)
        values = [sample["auc"] for sample in samples]
        low, high = percentile_interval(resample_seeds(values, label))
        assert rows[label][place].endswith(f"[{low:.3f}, {high:.3f}]")
    assert "in rows of at least 3 seeds of the seeds, too" in text


def test_differences_have_the_p_of_delong_and_bold_is_for_all_of_the_table(
    runs: Path, tmp_path: Path
) -> None:
    pairs = {
        dataset: [
            mean_placements([placements(*classes(dataset, seed, shift)) for seed in range(seeds)])
            for seeds, shift in ((2, 0.5), (3, 1.6))
        ]
        for dataset in DATASETS
    }
    single = {name: paired_test([(one, other)]).p for name, (one, other) in pairs.items()}
    unseen = [(pairs[name][0], pairs[name][1]) for name in ("celeb", "dfdc")]
    single["mean of the unseen"] = paired_test(unseen).p
    corrected = dict(zip(single, holm_correction(list(single.values())), strict=True))
    for holm, expected in (("column", single), ("table", corrected)):
        out = tmp_path / holm
        report(runs, out=out, resamples=400, against="fmsd", holm=holm)
        label = next(iter(table_of(out, "AUC per video")[1]))
        header, rows, text = table_of(out, f"AUC per video minus that of {label}")
        ((_, cells),) = rows.items()
        for column, cell in zip(header[1:], cells, strict=True):
            p = expected[column]
            shown = "< 0.001" if p < 0.001 else f"= {p:.3f}"
            assert f"DeLong p {shown}" in cell
            bootstrap = re.findall(r", p [<=] (\d\.\d+)", cell)[0]
            if holm == "table":
                assert cell.startswith("**") == (float(bootstrap) < 0.05)
        frame = table_of(out, f"AUC per frame minus that of {label}")[2]
        assert "DeLong" not in frame
        whole = "p corrected by Holm's method for the 4 comparisons of this table"
        assert (whole in " ".join(text.split())) == (holm == "table")


def test_bold_takes_enough_resamples_and_the_caption_says_how_many(
    runs: Path, tmp_path: Path
) -> None:
    report(runs, out=tmp_path / "out", resamples=50, against="fmsd")
    text = (tmp_path / "out" / "results.md").read_text().split("minus that of")[1]
    assert "which takes resamples=160 or more" in text
    assert "**" not in text.partition("## ")[0]


def test_the_correction_is_holms_over_columns_or_the_table() -> None:
    p = {"a": {"x": 0.01, "y": 0.2}, "b": {"x": 0.02, "y": 0.001}, "c": {"x": None, "y": 0.5}}
    cells = {
        label: {
            column: Cell(1, p=value, delong=None if value is None else value / 2, few=value is None)
            for column, value in row.items()
        }
        for label, row in p.items()
    }
    places = [(label, column) for label, row in p.items() for column in row if row[column]]
    whole = holm_correction([p[label][column] or 0 for label, column in places])
    found = with_corrected_p(cells, "table")
    for (label, column), value in zip(places, whole, strict=True):
        assert found[label][column].p == value
        assert found[label][column].best == (value < 0.05)
    columns = with_corrected_p(cells, "column")
    assert [columns[label]["x"].p for label in "ab"] == [0.02, 0.02]
    assert [columns[label]["y"].delong for label in "abc"] == pytest.approx([0.2, 0.0015, 0.25])
    assert columns["c"]["x"] == cells["c"]["x"]


def test_the_page_shows_pairs_of_datasets_worst_forgeries_areas_and_calibration(
    runs: Path, tmp_path: Path
) -> None:
    report(runs, out=tmp_path / "out", resamples=0)
    page = tmp_path / "out" / "report.html"
    summary, *matrices = tables(page, "cross")
    sets = {name: [classes(name, seed, 1.6) for seed in range(3)] for name in DATASETS}
    shown = ["celeb", "dfdc", "ff"]  # as in the tables of results: unseen ones first
    for place, real in enumerate(shown):
        for column, fake in enumerate(shown):
            mean = np.mean([auc(sets[real][seed][0], sets[fake][seed][1]) for seed in range(3)])
            assert matrices[0][place][column + 1].startswith(f"{mean:.3f} [")
    apart = [matrices[0][one][other + 1] for one in range(3) for other in range(3) if one != other]
    numbers = [float(cell.split()[0]) for cell in (summary[0][2], *apart)]
    assert numbers[0] == pytest.approx(np.mean(numbers[1:]), abs=1e-3)
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", summary[0][2])
    worst = tables(page, "worst")[0]
    assert [float(row[2]) for row in worst] == sorted(float(row[2]) for row in worst)
    assert {(row[0], row[1]) for row in worst} <= {
        *(("swap", "ff"), ("puppet", "ff"), ("synthesis", "celeb")),
        *(("swap", "dfdc"), ("morph", "dfdc")),
    }
    assert {tuple(row[4:]) for row in worst} == {("12", "12")}
    assert len(tables(page, "selective")) == 3
    overall, *each = tables(page, "transfer")
    assert len(overall) == len(each) == 5
    assert [row[0] for row in each[0]] == shown
    for place in range(1, 5):
        mean = np.mean([float(row[place]) for row in each[0]])
        assert float(overall[0][place]) == pytest.approx(mean, abs=1e-3)


def test_the_worst_forgeries_are_means_over_seeds_with_an_interval_where_there_are_enough() -> None:
    table = pl.DataFrame(
        [
            ("a", seed, "d", domain, value + seed / 10, 0.01 * (1 + seed), 30, count)
            for seed in (0, 1)
            for domain, value, count in (("x", 0.8, 20), ("y", 0.4, 20), ("z", 0.5, 3))
        ],
        schema=["run", "seed", "dataset", "domain", "auc", "variance", "reals", "fakes"],
        orient="row",
    )
    low, high = auc_interval(0.45, 0.015)
    assert worst_forgeries(table, "a", 2) == [
        ["y", "d", "0.450", f"[{low:.3f}, {high:.3f}]", 20, 30],
        ["z", "d", "0.550", "[-]", 3, 30],
    ]


def attributes(folder: Path, kind: str, keys: tuple[str, ...] = ("path",)) -> Path:
    """A table that gives every second video of ff and celeb a gender, and the others none."""
    parts = [frames(name, (), 0) for name in ("ff", "celeb")]
    table = pl.concat(parts).select(*keys, gender=pl.col("video").str.slice(-1))
    even = pl.col("gender").is_in(["0", "2", "4", "6", "8"])
    table = table.with_columns(gender=pl.when(even).then(pl.lit("f")).otherwise(pl.lit("m")))
    table = table.unique(maintain_order=True)
    file = folder / f"attributes.{kind}"
    if kind == "parquet":
        table.write_parquet(file)
    else:
        table.write_csv(file, separator="\t" if kind == "tsv" else ",")
    return file


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("csv", ("path",)), ("tsv", ("dataset", "video")), ("parquet", ("video",))],
)
def test_groups_by_an_attribute_have_values_of_their_own_videos_and_a_gap(
    tmp_path: Path, kind: str, keys: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        finished(
            tmp_path / "runs" / str(seed),
            ["method=fmsd"],
            seed,
            datasets=DATASETS,
            thresholds={"frame": 0.5, "video": 0.6},
        )
    tidy = report(
        tmp_path / "runs",
        by="gender",
        attributes=attributes(tmp_path, kind, keys),
        out=tmp_path / "out",
        resamples=100,
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "groups.csv",
        "groups.md",
        "groups.tex",
    ]
    videos = [
        aggregate_videos(
            with_scores(frames("ff", (), seed)).filter(pl.col("video").str.contains("[02468]$"))
        )
        for seed in (0, 1)
    ]
    expected = np.mean([roc_auc_score(table["label"], table["score"]) for table in videos])
    own = tidy.filter(dataset="ff", group="f")
    assert own.filter(metric="auc")["value"].item() == pytest.approx(expected)
    rates = [
        (table.filter(label=label)["score"] >= 0.6).mean() for label in (0, 1) for table in videos
    ]
    assert own.filter(metric="fpr")["value"].item() == pytest.approx(np.mean(rates[:2]))
    assert own.filter(metric="tpr")["value"].item() == pytest.approx(np.mean(rates[2:]))
    # seven real videos of 12 are even: too few for an interval; 14 of 24 fakes are not
    assert own.filter(metric="fpr")["low"].item() is None
    assert own.filter(metric="tpr")["low"].item() is not None
    gaps = tidy.filter(group="")
    assert set(gaps.select("dataset", "metric").iter_rows()) == {("ff", "tpr")}
    both = tidy.filter(dataset="ff", metric="tpr").sort("group")["value"].to_list()
    assert both[0] == pytest.approx(abs(both[1] - both[2]))
    assert tidy.filter(dataset="dfdc")["group"].unique().to_list() == ["(unknown)"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "The fakes of a group against its own reals on celeb, ff" in printed
    assert "as the column does not divide both classes, on dfdc" in printed


def test_the_page_has_a_section_of_groups_and_compression_needs_no_table(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = attributes(tmp_path, "csv", ("video",))
    report(runs, out=tmp_path / "out", attributes=file, resamples=20)
    page = tmp_path / "out" / "report.html"
    assert tables(page, "groups")
    tidy = report(runs, by="compression", resamples=20)
    assert set(tidy["group"]) == {"(none)"}
    assert "AUC of videos by compression" in capsys.readouterr().out


def test_attributes_that_cannot_be_used_are_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {
        "": "is no table",
        "name,gender\na,f\n": "its columns are name, gender; rename the one",
        "path\na\n": "has columns of predictions alone",
        "path,label\na,1\n": "has columns of predictions alone",
        "path,gender\nff/real/0/0.png,f\nff/real/0/0.png,m\n": "has two lines of path",
        "path,gender\n,f\n": "has a line without path",
        "path,gender\nff/real/0/0.png,\x1b[31mred\n": "cannot be printed",
        f"path,gender\nff/real/0/0.png,{'x' * 101}\n": "is longer than 100",
        "path,gender\nother.png,f\n": "matches a test frame by path",
    }
    for text, sentence in texts.items():
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(InputError) as told:
            report(runs, by="gender", attributes=tmp_path / "a.csv")
        assert sentence in str(told.value)
    for words, sentence in {
        (f"attributes={tmp_path / 'none.csv'}", "by=gender"): "cannot be read",
        (f"attributes={tmp_path / 'a.csv'}",): "would not be shown",
        ("by=audio",): "give the manifest of the test dataset as attributes=manifest.parquet",
        ("by=path",): "by=path is unknown; choose one of dataset, domain, split, compression.",
        ("by=compression", "against=fmsd"): "against= compares whole datasets",
    }.items():
        assert main(["report", f"runs={runs}", *words]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("column", sorted({*SCHEMA} - {"path", "label", "video", "index"}))
def test_every_column_of_a_manifest_divides_into_groups(
    tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that predictions lack come from the manifest, given as a table of attributes."""
    finished(tmp_path / "runs" / "one", ["method=fmsd"], 0, datasets=("ff",))
    tested = frames("ff", (), 0)
    more = [name for name in SCHEMA if name not in tested.columns]
    table = tested.drop("logit").with_columns(
        pl.when(pl.col("index") > 0).then(pl.lit("a")).otherwise(pl.lit("b")).alias(name)
        for name in more
    )
    file = tmp_path / "manifest.parquet"
    table.write_parquet(file)
    tidy = report(
        tmp_path / "runs", by=column, attributes=file if column in more else None, resamples=20
    )
    assert tidy.height
    assert ("which predictions have themselves" in caplog.text) == (column in more)
    if column in more:
        assert set(tidy["group"]) == {"a", "b", ""}


def test_an_attribute_is_text_on_the_page_and_no_formula_in_the_table(
    runs: Path, tmp_path: Path
) -> None:
    hostile = "<b>=1&$_|"
    videos = ["ff/real/0", "ff/swap/0"]
    table = pl.DataFrame({"video": videos, "note": [f"={hostile}"] * 2})
    table.write_csv(tmp_path / "a.csv")
    report(runs, by="note", attributes=tmp_path / "a.csv", out=tmp_path / "groups", resamples=0)
    csv = (tmp_path / "groups" / "groups.csv").read_text()
    assert f"'={hostile}" in csv
    assert "<b>" not in (tmp_path / "groups" / "groups.md").read_text().replace("&lt;b>", "")
    report(runs, attributes=tmp_path / "a.csv", out=tmp_path / "out", resamples=0)
    assert "<b>=1" not in (tmp_path / "out" / "report.html").read_text()
