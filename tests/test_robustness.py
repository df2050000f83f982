"""`fmsd evaluate corrupt=...` as a user runs it: what is scored, what is written, when, and what is
refused.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from fmsd.cli.main import main
from fmsd.data.loading import corruptions
from fmsd.data.loading.corruptions import NAMES, STRENGTHS, corrupt, frame_seed
from fmsd.data.loading.image import read_image
from fmsd.errors import InputError
from fmsd.figures import style
from fmsd.figures.robustness import plot_robustness
from fmsd.metrics.table import COLUMNS
from tests.conftest import grow_tree

WORDS = ("corrupt=[jpeg,noise]", "severities=[1,5]")
PASSES = [("jpeg", 1), ("jpeg", 5), ("noise", 1), ("noise", 5)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, its data, and its evaluation under two corruptions."""
    folder = tmp_path_factory.mktemp("robustness")
    data = [
        "data=folder",
        f"data.root={grow_tree(folder / 'data')}",
        "trainer=smoke",
        "backbone=demo_vit",
    ]
    assert main(["train", "method=probe", *data, f"hydra.run.dir={folder / 'run'}"]) == 0
    assert (
        main(
            ["evaluate", f"run={folder / 'run'}", *WORDS, f"hydra.run.dir={folder / 'robustness'}"]
        )
        == 0
    )
    return folder


def test_every_corruption_and_severity_has_its_rows(place: Path) -> None:
    table = pl.read_csv(place / "robustness" / "corruptions.csv")
    assert table.columns == [*COLUMNS, "stamp", "pixels", "overlap", "corruption", "severity"]
    assert table.select("corruption", "severity").unique(maintain_order=True).rows() == [
        ("none", 0),
        *PASSES,
    ]
    clean = table.filter(severity=0).drop("corruption", "severity")
    assert clean.equals(pl.read_csv(place / "robustness" / "results.csv"))
    assert clean.equals(pl.read_csv(place / "run" / "results.csv"))
    with Image.open(place / "robustness" / "robustness.png") as image:
        image.load()
        assert image.size > (300, 200)
    record = json.loads((place / "robustness" / "run.json").read_text())
    assert record["corruptions"] == {name: list(STRENGTHS[name]) for name in ("jpeg", "noise")}
    config = yaml.safe_load((place / "robustness" / "config.yaml").read_text())
    assert (config["corrupt"], config["severities"]) == (["jpeg", "noise"], [1, 5])


def test_values_follow_from_the_predictions_alone(place: Path) -> None:
    table = pl.read_csv(place / "robustness" / "corruptions.csv").filter(metric="auc")
    for name, severity in PASSES:
        (path,) = (place / "robustness" / "predictions" / f"{name}_{severity}").iterdir()
        scores = pl.read_parquet(path).with_columns(
            score=1 / (1 + (-pl.col("logit").cast(pl.Float64)).exp())
        )
        videos = scores.group_by("video").agg(pl.col("score").mean(), pl.col("label").first())
        for level, frames in (("frame", scores), ("video", videos)):
            value = table.filter(
                dataset=path.stem, level=level, corruption=name, severity=severity
            )["value"].item()
            assert value == pytest.approx(roc_auc_score(frames["label"], frames["score"]), abs=1e-6)


@pytest.mark.parametrize(("name", "severity"), [("jpeg", 5), ("noise", 1)])
def test_scores_are_those_of_images_stored_corrupted(
    name: str, severity: int, place: Path, tmp_path: Path
) -> None:
    for path in (place / "data").rglob("*.png"):
        own = path.relative_to(place / "data")
        (tmp_path / own).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(corrupt(read_image(path), name, severity, frame_seed(own.as_posix()))).save(
            tmp_path / own
        )
    words = (
        "data=folder",
        f"data.root={tmp_path}",
        "trainer=smoke",
        f"hydra.run.dir={tmp_path / 'stored'}",
    )
    assert main(["evaluate", f"run={place / 'run'}", *words]) == 0
    kept = place / "robustness" / "predictions"
    (file,) = (tmp_path / "stored" / "predictions").iterdir()
    one, other, clean = (
        pl.read_parquet(folder / file.name)
        for folder in (file.parent, kept / f"{name}_{severity}", kept)
    )
    assert one.drop("content").equals(other.drop("content"))
    assert other["content"].equals(clean["content"])
    assert not one["logit"].equals(clean["logit"])


def test_nothing_is_corrupted_unasked(place: Path) -> None:
    assert main(["evaluate", f"run={place / 'run'}", f"hydra.run.dir={place / 'plain'}"]) == 0
    assert not {"corruptions.csv", "robustness.png"} & {
        path.name for path in (place / "plain").iterdir()
    }
    assert [path.suffix for path in (place / "plain" / "predictions").iterdir()] == [".parquet"]
    assert "corrupt" not in yaml.safe_load((place / "plain" / "config.yaml").read_text())
    assert (place / "plain" / "results.csv").read_bytes() == (
        place / "robustness" / "results.csv"
    ).read_bytes()


def test_nothing_looks_finished_before_the_end_and_nothing_is_left_of_a_failure(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "interrupted"
    seen: list[set[str]] = []

    def fail(*_: Any) -> np.ndarray:
        seen.append({path.name for path in folder.rglob("*")})
        raise InputError("The image x cannot be read", "restore it")

    monkeypatch.setitem(corruptions.FUNCTIONS, "noise", fail)  # pyright: ignore[reportArgumentType]
    assert main(["evaluate", f"run={place / 'run'}", *WORDS, f"hydra.run.dir={folder}"]) == 2
    assert {"config.yaml", "jpeg_1", "jpeg_5"} <= seen[0]
    assert not {"results.csv", "run.json", "corruptions.csv", "robustness.png"} & seen[0]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("corrupt=[jpeg,jpg]",), "There is no corruption 'jpg'; choose among jpeg, h264"),
        (("corrupt=all", "severities=[0]"), "There is no severity 0; choose among 1, 2, 3, 4, 5"),
        (("corrupt=[]",), "corrupt=[] is empty"),
        (("severities=[1]",), "means nothing without a corruption"),
    ],
)
def test_refusals(
    words: tuple[str, ...], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["evaluate", f"run={place / 'run'}", *words, f"hydra.run.dir={place / 'refused'}"])
        == 2
    )
    assert said in capsys.readouterr().err
    assert not (place / "refused").exists()


def test_the_picture_has_a_panel_per_corruption_and_a_line_per_dataset(tmp_path: Path) -> None:
    passes = [("none", 0), *((name, severity) for name in NAMES for severity in (5, 1, 3))]
    rows = [
        (dataset, level, metric, 0.9 - 0.1 * place - 0.08 * severity, name, severity)
        for name, severity in passes
        for place, dataset in enumerate(("ff++", "celebdf"))
        for level, metric in (("video", "auc"), ("frame", "auc"), ("video", "eer"))
    ]
    table = pl.DataFrame(
        rows, schema=["dataset", "level", "metric", "value", "corruption", "severity"], orient="row"
    )
    figure = plot_robustness(table)
    style.write_png(figure, tmp_path / "robustness.png")
    with Image.open(tmp_path / "robustness.png") as image:
        image.load()
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(NAMES)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ff++", "celebdf"]
    for axes in figure.axes:
        for line, start in zip(axes.lines[:2], (0.9, 0.8), strict=True):
            severity, value = map(np.asarray, line.get_data())
            np.testing.assert_array_equal(severity, [0, 1, 3, 5])
            np.testing.assert_allclose(value, start - 0.08 * np.array([0, 1, 3, 5]))
        assert axes.get_ylim()[0] < 0.4


def test_tables_are_printed_by_dataset_with_means(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pl.read_csv(place / "robustness" / "corruptions.csv").filter(
        level="video", metric="auc"
    )
    assert (
        main(
            [
                "evaluate",
                f"run={place / 'run'}",
                "corrupt=noise",
                "severities=[1,5]",
                f"hydra.run.dir={place / 'printed'}",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    values = table.filter(corruption="noise")["value"].to_list()
    clean = table.filter(severity=0)
    assert (
        f"Video AUC on {clean['dataset'].item()} by severity; clean {clean['value'].item():.3f}"
        in said
    )
    (line,) = (line for line in said.splitlines() if "noise" in line)
    assert [float(cell.split()[0]) for cell in line.split("│")[2:5]] == pytest.approx(
        [*values, np.mean(values)], abs=6e-4
    )
