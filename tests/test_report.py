"""Tables over many runs, by test dataset and by forgery."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from fmsd.cli import main
from fmsd.metrics.table import results, scored
from fmsd.metrics.video import by_video
from fmsd.report import merging
from fmsd.report.run import Run
from fmsd.tasks.report import report
from fmsd.types import InputError

FORGERIES = {"ff": ("swap", "puppet"), "celeb": ("synthesis",)}


def frames(dataset: str, inverted: Sequence[str], seed: int) -> pl.DataFrame:
    """Scored frames of a dataset; the forgeries in `inverted` score below the reals."""
    rng = np.random.default_rng(seed)
    rows = []
    for domain in ("real", *FORGERIES[dataset]):
        for video in range(12):
            for index in range(3):
                mean = 0.0 if domain == "real" else -1.5 if domain in inverted else 1.0
                name = f"{dataset}/{domain}/{video}"
                rows.append((f"{name}/{index}.png", int(domain != "real"), dataset, domain, name, index, "test", "", rng.normal(mean, 1)))
    columns = ("path", "label", "dataset", "domain", "video", "index", "split", "compression", "logit")
    return pl.DataFrame(rows, schema=columns, orient="row").cast({"logit": pl.Float32})


def finished(
    folder: Path, overrides: Sequence[str], seed: int, inverted: Sequence[str] = (), datasets: Sequence[str] = ("ff", "celeb"), **record
) -> Run:
    """The folder of a run that was tested."""
    run = Run(folder)
    tests = {dataset: frames(dataset, inverted, seed + 10 * len(inverted)) for dataset in datasets}
    for dataset, predictions in tests.items():
        run.write_predictions(dataset, predictions)
    run.write_results(results(pl.concat(tests.values()), "iid"))
    run.write_record({"overrides": [*overrides, f"seed={seed}"], "seed": seed, **record})
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of a specialist that is inverted on one forgery, and a merge that was tested on one dataset."""
    for seed in (0, 1):
        finished(tmp_path / "runs" / f"swap{seed}", ["data=ff", "data.domains=[swap]"], seed, inverted=("puppet",))
    finished(tmp_path / "runs" / "merge", ["data=ff", "merger=average"], 0, datasets=("ff",), merged=["swap0", "swap1"])
    return tmp_path / "runs"


def test_by_domain_a_column_is_a_forgery_and_inverted_ones_are_flagged(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tidy = report(runs, out=tmp_path / "out", by="domain")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["domains.csv", "domains.md", "domains.png"]
    assert pl.read_csv(tmp_path / "out" / "domains.csv").equals(tidy)
    assert tidy.columns == ["dataset", "domain", "level", "value", "n_frames", "n_videos", "run", "seed"]
    text = (tmp_path / "out" / "domains.md").read_text()
    printed = capsys.readouterr().out
    assert printed.count("data.domains=[swap]") == printed.count("(inverted)") == 2
    for level, part in zip(("frame", "video"), text.split("## ")[1:], strict=True):
        lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in part.splitlines() if line.startswith("|")]
        header, merge, swap = lines[0], *lines[2:]
        assert part.startswith(f"auc per {level}")
        assert set(header[1:]) == {"celeb/synthesis", "ff/swap", "ff/puppet"}
        assert (merge[0], swap[0]) == ("merger=average", "data.domains=[swap]")
        assert merge[header.index("celeb/synthesis")] == "-"
        assert "±" not in "".join(merge)
        assert [name for name, cell in zip(header, swap, strict=True) if "(inverted)" in cell] == ["ff/puppet"]
        expected = []
        for seed in (0, 1):
            own = scored(frames("ff", ("puppet",), seed + 10)).filter(pl.col("domain") != "swap")
            table = own if level == "frame" else by_video(own)
            expected.append(roc_auc_score(table["label"], table["score"]))
        assert swap[header.index("ff/puppet")] == f"{np.mean(expected):.3f} ± {np.std(expected, ddof=1):.3f} (inverted)"


def test_the_picture_shows_the_means_of_videos(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(merging, "domain_matrix", lambda *arguments: drawn.append(arguments))
    tidy = report(runs, out=tmp_path / "out", by="domain").filter(level="video")
    ((rows, columns, values, path),) = drawn
    assert path == tmp_path / "out" / "domains.png"
    assert rows == ["merger=average", "data.domains=[swap]"]
    for row, label in enumerate(rows):
        for column, name in enumerate(columns):
            dataset, domain = name.split("/")
            found = tidy.filter(run=label, dataset=dataset, domain=domain)["value"]
            np.testing.assert_allclose(values[row, column], found.mean() if len(found) else np.nan)


def test_by_domain_needs_predictions_alone(runs: Path) -> None:
    before = report(runs, by="domain")
    for path in runs.rglob("results.csv"):
        path.write_text("nothing\n")
    assert report(runs, by="domain").equals(before)
    broken = runs / "merge" / "predictions" / "ff.parquet"
    pl.read_parquet(broken).drop("domain").write_parquet(broken)
    with pytest.raises(InputError, match=r"ff\.parquet does not hold a run's predictions .*domain"):
        report(runs, by="domain")
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError, match="does not hold a run's predictions"):
        report(runs, by="domain")
    broken.unlink()
    with pytest.raises(InputError, match="merge has no predictions"):
        report(runs, by="domain")


def test_by_dataset_it_is_as_before(runs: Path, tmp_path: Path) -> None:
    tidy = report(runs, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.csv", "results.md"]
    text = (tmp_path / "out" / "results.md").read_text()
    value = tidy.filter(run="merger=average", dataset="ff", level="frame", metric="auc")["value"].item()
    assert f"| merger=average | {value:.3f} | - |" in text
    assert text.count("±") == 2 * 2
    report(runs, "eer", out=tmp_path / "eer")
    assert "(inverted)" not in (tmp_path / "eer" / "results.md").read_text()  # low is good
    finished(tmp_path / "upside" / "down", [], 0, inverted=("swap", "puppet"), datasets=("ff",))
    report(tmp_path / "upside", out=tmp_path / "inverted")
    assert (tmp_path / "inverted" / "results.md").read_text().count("(inverted)") == 2


def test_a_merge_may_have_no_seed(runs: Path) -> None:
    record = json.loads((runs / "merge" / "run.json").read_text())
    (runs / "merge" / "run.json").write_text(json.dumps(record | {"seed": None}))
    for by in ("dataset", "domain"):
        assert set(report(runs, by=by)["seed"]) == {None, 0, 1}


def test_the_command_and_what_it_refuses(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "runs=runs", "by=domain", "out=tables"]) == 0
    with Image.open(tmp_path / "tables" / "domains.png") as image:
        assert image.format == "PNG"
    for words, sentence in {
        ("by=domain", "metric=eer"): "metric=eer is not told by domain, only the AUC is; leave metric out, or set by=dataset.",
        ("by=colour",): "by=colour is unknown; choose one of dataset, domain.",
    }.items():
        capsys.readouterr()
        assert main(["report", "runs=runs", *words]) == 2
        assert sentence in capsys.readouterr().err
