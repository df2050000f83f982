"""What has no score is counted, and one policy says what becomes of it."""

import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fmsd.cli.main import main
from fmsd.data import absent_videos
from fmsd.data.extraction.faces import Face
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.selection import Selection
from fmsd.data.sources import folder
from fmsd.engine.stamp import with_coverage
from fmsd.errors import InputError
from fmsd.metrics.coverage import (
    COUNTS,
    LEAST_SHARE,
    complete_counts,
    counts_by_level,
    cover,
)
from fmsd.metrics.table import COLUMNS, compute_results, with_scores
from fmsd.outcomes import NO_FRAME, OUTCOMES, SCORED
from fmsd.report.rows import load_rows
from fmsd.runs.folder import Run
from fmsd.runs.predictions import read_predictions
from fmsd.tasks.extract import extract
from fmsd.tasks.report import report
from tests.conftest import grow_tree, write_image
from tests.runs import finished, frames, lines, sealed, stamped
from tests.test_safe_extraction import Centre

SMALL = ("trainer=smoke", "backbone=demo_vit", "method=probe", "data.videos=null")


def partial(
    seed: int = 0, share: float = 0.2, kinds: Sequence[str] = OUTCOMES[1:], dataset: str = "ff"
) -> pl.DataFrame:
    """Predictions of which a share of the frames, and with them some videos, have no score."""
    whole = frames(dataset, (), seed)
    rng = np.random.default_rng(seed)
    gone = rng.random(whole.height) < share
    gone |= whole["video"].is_in(rng.choice(whole["video"].unique().sort(), 4)).to_numpy()
    outcome = np.where(gone, rng.choice(list(kinds), whole.height), SCORED)
    return whole.with_columns(outcome=pl.Series(outcome.tolist())).with_columns(
        logit=pl.when(pl.col("outcome") == SCORED).then("logit")
    )


def values(predictions: pl.DataFrame, coverage: str | None = "exclude") -> pl.DataFrame:
    return compute_results(predictions, "iid", coverage=coverage)


@pytest.mark.parametrize("seed", range(3))
def test_exclude_gives_the_metrics_of_the_frames_that_have_a_score(seed: int) -> None:
    predictions = partial(seed)
    scored = predictions.filter(outcome=SCORED).drop("outcome")
    own = [name for name in COLUMNS if name not in COUNTS]
    assert values(predictions).select(own).equals(values(scored).select(own))


@pytest.mark.parametrize(("policy", "probability"), [("as_real", 0.0), ("as_chance", 0.5)])
def test_filled_scores_are_appended_ones(policy: str, probability: float) -> None:
    predictions = partial()
    found = values(predictions, policy)
    scored = predictions.filter(outcome=SCORED).drop("outcome")
    rest = predictions.filter(pl.col("outcome") != SCORED).drop("outcome")
    logit = {0.0: -1000.0, 0.5: 0.0}[probability]
    filled = rest.with_columns(logit=pl.lit(logit, pl.Float32))
    every = compute_results(pl.concat([scored, filled]), "iid")
    assert found.filter(level="frame")["value"].to_list() == pytest.approx(
        every.filter(level="frame")["value"].to_list()
    )
    # a video is scored by the frames that have a score, and filled where there is none
    lost = filled.filter(~pl.col("video").is_in(scored["video"].unique().to_list()))
    assert lost["video"].n_unique() > 0
    videos = compute_results(pl.concat([scored, lost]), "iid").filter(level="video")
    assert found.filter(level="video")["value"].to_list() == pytest.approx(
        videos["value"].to_list()
    )
    assert found["n_videos"].unique().to_list() == [predictions["video"].n_unique()]


def test_a_certain_real_has_the_probability_zero_and_no_score_lies_below_it() -> None:
    predictions = partial().with_columns(logit=pl.col("logit") - 30)
    covered = cover(predictions, "as_real")
    assert covered["logit"].null_count() == 0
    score = with_scores(covered)["score"].to_numpy()
    assert (score[covered["filled"].to_numpy()] == 0).all()
    assert covered.columns == [name for name in predictions.columns if name != "outcome"] + [
        "filled"
    ]


@pytest.mark.parametrize("policy", ["exclude", "as_real", "as_chance"])
def test_counts_are_those_of_all_expected_frames_and_add_up(policy: str) -> None:
    predictions = partial()
    table = values(predictions, policy)
    assert (table["n_expected"] == table.select(pl.sum_horizontal(COUNTS[1:])).to_series()).all()
    frame, video = (
        table.filter(level=level, metric="auc").row(0, named=True) for level in ("frame", "video")
    )
    for outcome in OUTCOMES:
        assert frame[f"n_{outcome}"] == predictions.filter(outcome=outcome).height
    assert frame["n_expected"] == predictions.height
    assert video["n_expected"] == predictions["video"].n_unique()
    assert video["n_scored"] == predictions.filter(outcome=SCORED)["video"].n_unique()


def test_a_video_has_the_first_outcome_of_its_frames() -> None:
    rows = {"a": ["failed", "no_face"], "b": ["missing", "unreadable"], "c": ["failed", "scored"]}
    table = pl.DataFrame(
        [(video, outcome) for video, own in rows.items() for outcome in own],
        schema=["video", "outcome"],
        orient="row",
    )
    counts = counts_by_level(table)["video"]
    assert counts == {"n_expected": 3, "n_scored": 1, "n_no_face": 1, "n_unreadable": 1,
                      "n_missing": 0, "n_failed": 0}  # fmt: skip


def test_complete_predictions_give_the_same_results_whatever_the_policy() -> None:
    whole = frames("ff", (), 0)
    plain = values(whole)
    counted = plain.group_by("level").agg(pl.col(COUNTS).unique().first())
    for level, number in (("frame", whole.height), ("video", whole["video"].n_unique())):
        row = counted.filter(level=level).select(COUNTS).row(0, named=True)
        assert row == complete_counts(number)
    for policy in (None, "exclude", "as_real", "as_chance", "refuse"):
        assert values(whole, policy).equals(plain)
        explicit = whole.with_columns(outcome=pl.lit(SCORED))
        assert values(explicit, policy).equals(plain)
    assert "filled" not in cover(whole, "as_real").columns


def test_refuse_and_the_default_refuse_by_class_and_by_level() -> None:
    predictions = partial(share=0.0, kinds=["no_face"])
    for policy in (None, "refuse"):
        with pytest.raises(InputError, match=r"Only \d+ of the \d+ (real|fake) test videos of ff"):
            values(predictions, policy)
    # all classes count alone: 150 lost fakes among 100,000 frames are many of a few fakes
    many = pl.concat(
        [
            frames("ff", (), seed).with_columns(
                path=pl.col("path") + f"_{seed}", video=pl.col("video") + f"_{seed}"
            )
            for seed in range(5)
        ]
    ).with_columns(outcome=pl.lit(SCORED))
    place = many.with_row_index("row").filter(label=1)["row"]

    def without(count: int) -> pl.DataFrame:
        lost = pl.int_range(pl.len()).is_in(place[:count].to_list())
        return many.with_columns(
            logit=pl.when(~lost).then("logit"),
            outcome=pl.when(lost).then(pl.lit("missing")).otherwise("outcome"),
        )

    allowed = int(many.filter(label=1).height * (1 - LEAST_SHARE))
    assert allowed >= 2
    within = without(2)  # two of the three frames of a video
    assert values(within, None).equals(values(within, "exclude"))
    with pytest.raises(InputError, match=r"of the 120 fake test videos|fake test frames"):
        values(without(allowed + 1), None)
    with pytest.raises(InputError, match=r"1 missing\)|2 missing\)"):
        values(within, "refuse")


@pytest.mark.parametrize("label", [0, 1])
def test_a_class_without_any_score_is_refused_and_not_dropped(label: int) -> None:
    lost = pl.col("label") == label
    predictions = frames("ff", (), 0).with_columns(
        logit=pl.when(~lost).then("logit"),
        outcome=pl.when(lost).then(pl.lit("failed")).otherwise(pl.lit(SCORED)),
    )
    kind = "fake" if label else "real"
    with pytest.raises(InputError, match=f"Only 0 of the .* {kind} test videos of ff have a score"):
        values(predictions, "exclude")
    assert values(predictions, "as_real").height


def test_grouping_by_folder_counts_the_videos_that_it_makes() -> None:
    number = pl.col("video").str.extract(r"([^/]+)$")
    kind = pl.when(pl.col("label") == 1).then(pl.lit("fake")).otherwise(pl.lit("real"))
    predictions = partial().with_columns(video=pl.concat_str("domain", pl.lit("/"), kind, number))
    table = compute_results(predictions, "", naming="folder").filter(level="video")
    assert set(table["n_expected"]) == {24}  # of 36: the fakes of two forgeries share their names
    assert (table["n_scored"] >= table["n_videos"]).all()


def test_video_results_alone() -> None:
    table = compute_results(frames("ff", (), 0), "", levels=("video",))
    both = compute_results(frames("ff", (), 0), "")
    assert table.equals(both.filter(level="video"))


def test_stamps_have_the_coverage_only_where_something_has_no_score() -> None:
    tests = {"ff": frames("ff", (), 0), "celeb": partial(dataset="celeb")}
    stamps = stamped(tests)
    whole = with_coverage(stamps, dict.fromkeys(tests, tests["ff"]), "as_real")
    assert [facts.get("coverage") for facts in whole.values()] == [None] * 4
    assert list(whole.values()) == list(stamps.values())
    found = with_coverage(stamps, tests, "as_real")
    policies = {(facts["dataset"], facts.get("coverage")) for facts in found.values()}
    assert policies == {("ff", None), ("celeb", "as_real")}
    default = with_coverage(stamps, tests, None)
    assert default.keys() == with_coverage(stamps, tests, "exclude").keys()
    assert len(default.keys() & found.keys()) == 2


class Bright(Centre):
    """Finds a face in every image that is not dark."""

    def __call__(self, image: np.ndarray) -> list[Face]:
        return super().__call__(image) if image.mean() > 20 else []


def grown(root: Path) -> Selection:
    """Images of six videos a class and split; of one test video of a class no face is found, and
    one of another cannot be read.
    """
    grow_tree(root, videos=6)
    for index in range(2):
        path = write_image(root / "test/real/dark" / f"{index}.png", 0)
        dark = np.zeros((32, 32, 3), np.uint8)
        Image.fromarray(dark + index).save(path)
    (root / "test/swap/torn").mkdir()
    (root / "test/swap/torn/0.png").write_bytes(b"torn")
    (root / "test/swap/late.mp4").write_bytes(b"no video")
    splits = {"train": "train", "val": "val", "test": "test"}
    source = functools.partial(
        folder.scan,
        dataset="folder",
        layout="{split}/{domain}/{video}",
        splits=splits,
        real=["real"],
    )
    return Selection("folder", str(root), source, ["folder"], ["folder"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops without some test videos, and a run that was trained on them."""
    place = tmp_path_factory.mktemp("coverage")
    data = grown(place / "data")
    assert extract(data, Bright, Recipe(frames=2, size=32), place / "crops") == 2
    assert main(training(place / "crops", place / "run", "coverage=exclude")) == 0
    return place


def training(root: Path, run: Path, *more: str) -> list[str]:
    command = ["train", "data=extracted", f"data.root={root}", "data.workers=0", *SMALL]
    datasets = ("data.train=[folder]", "data.test=[folder]")
    return [*command, *datasets, f"hydra.run.dir={run}", *more]


def evaluated(home: Path, out: Path, *more: str) -> int:
    return main(["evaluate", f"run={home / 'run'}", f"hydra.run.dir={out}", *more])


def counts(run: Path, level: str) -> dict[str, Any]:
    table = Run(run).results().filter(level=level, metric="auc")
    return table.select("n_frames", "n_videos", "n_real_videos", *COUNTS).row(0, named=True)


def test_an_extraction_lists_the_videos_of_which_it_made_no_crop(home: Path) -> None:
    absent = absent_videos.read_absent(home / "crops")
    assert absent is not None
    rows = absent.select("video", "label", "split", "outcome").rows()
    assert rows == [
        ("folder/real/dark", 0, "test", "no_face"),
        ("folder/swap/late", 1, "test", "unreadable"),
        ("folder/swap/torn", 1, "test", "unreadable"),
    ]


def test_a_faceless_video_is_expected_by_the_test(home: Path) -> None:
    own = Run(home / "run")
    assert counts(home / "run", "video") == {
        "n_frames": 24, "n_videos": 12, "n_real_videos": 6,
        "n_expected": 15, "n_scored": 12, "n_no_face": 1, "n_unreadable": 2,
        "n_missing": 0, "n_failed": 0,
    }  # fmt: skip
    predictions = read_predictions(home / "run/predictions/folder.parquet")
    lost = predictions.filter(pl.col("outcome") != SCORED)
    assert lost["video"].to_list() == ["folder/real/dark", "folder/swap/late", "folder/swap/torn"]
    assert lost["index"].to_list() == [NO_FRAME] * 3
    policies = {facts.get("coverage") for facts in own.record()["stamps"].values()}
    assert policies == {"exclude"}
    assert (
        "videos: 12 of 15 scored, 1 no face, 2 unreadable" in (home / "run/results.md").read_text()
    )


@pytest.mark.parametrize("policy", ["as_real", "as_chance"])
def test_an_evaluation_scores_the_absent_videos_by_its_policy(
    home: Path, tmp_path: Path, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(home, tmp_path / "evaluation", f"coverage={policy}") == 0
    assert "folder, videos: 12 of 15 scored, 1 no face, 2" in " ".join(
        capsys.readouterr().out.split()
    )
    found = counts(tmp_path / "evaluation", "video")
    assert (found["n_videos"], found["n_real_videos"], found["n_scored"]) == (15, 7, 12)
    predictions = read_predictions(tmp_path / "evaluation/predictions/folder.parquet")
    scored = predictions.filter(outcome=SCORED)
    rest = predictions.filter(pl.col("outcome") != SCORED)
    logit = {"as_real": -1000.0, "as_chance": 0.0}[policy]
    whole = pl.concat([scored, rest.with_columns(logit=pl.lit(logit, pl.Float32))])
    expected = compute_results(whole.drop("outcome"), "", metrics=["auc"])["value"].to_list()
    table = Run(tmp_path / "evaluation").results().filter(metric="auc")
    assert table["value"].to_list() == pytest.approx(expected)
    # a report computes the same from the predictions
    tidy = report(tmp_path / "evaluation").filter(metric="auc")
    assert tidy["value"].to_list() == pytest.approx(expected)
    assert tidy["n_expected"].to_list() == [27, 15]


def test_too_few_videos_are_refused_before_the_first_step(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(training(home / "crops", tmp_path / "run")) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Only 6 of the 7 real test videos of folder have a score (the others: 1 no face)" in said
    assert "coverage=exclude, as_real or as_chance" in said
    assert not (tmp_path / "run").exists()
    assert evaluated(home, tmp_path / "evaluation", "coverage=refuse") == 2
    assert evaluated(home, tmp_path / "evaluation") == 2
    assert not (tmp_path / "evaluation").exists()
    assert evaluated(home, tmp_path / "evaluation", "coverage=half") == 2
    assert "coverage=half is unknown" in capsys.readouterr().err


def test_a_pack_keeps_the_list_and_a_limit_of_videos_passes_over_absent_ones(
    home: Path, tmp_path: Path
) -> None:
    packing = ["pack", "data=extracted", f"data.root={home / 'crops'}", f"out={tmp_path / 'pack'}"]
    assert main(packing) == 0
    one, other = (absent_videos.read_absent(place) for place in (home / "crops", tmp_path / "pack"))
    assert one is not None
    assert other is not None
    assert one.equals(other)
    place = f"data.root={tmp_path / 'pack'}"
    data = ("data=extracted", place, "data.train=[folder]", "data.test=[folder]")
    out = tmp_path / "evaluation"
    assert evaluated(home, out, *data, "data.videos=4", "coverage=exclude") == 0
    found = counts(out, "video")  # dark < late < test0, ..., test5 < torn
    assert (found["n_videos"], found["n_expected"], found["n_no_face"]) == (8, 10, 1)


def test_an_older_extraction_has_no_list_and_says_so(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(home / "crops", tmp_path / "crops")
    (tmp_path / "crops" / absent_videos.ABSENT).unlink()
    data = ("data=extracted", f"data.root={tmp_path / 'crops'}")
    caplog.set_level("INFO", "fmsd")
    named = ("data.train=[folder]", "data.test=[folder]")
    assert evaluated(home, tmp_path / "evaluation", *data, *named) == 0
    assert "does not list the videos without a face" in caplog.text
    assert counts(tmp_path / "evaluation", "video")["n_expected"] == 12
    predictions = read_predictions(tmp_path / "evaluation/predictions/folder.parquet")
    assert "outcome" not in predictions.columns
    stamps = Run(tmp_path / "evaluation").record()["stamps"]
    assert not any("coverage" in facts for facts in stamps.values())
    # fmsd index makes it again
    manifest = tmp_path / "crops/manifest.parquet"
    assert main(["index", *data, f"out={manifest}"]) == 0
    found, own = (
        absent_videos.read_absent(place) for place in (tmp_path / "crops", home / "crops")
    )
    assert found is not None
    assert own is not None
    assert found.equals(own)


def test_an_unreadable_image_is_an_error_unless_the_coverage_is_given(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    grow_tree(root, splits=("test",), videos=6, seed=500)
    for frame in ("test0/1", "test1/0", "test1/1"):
        (root / "test/swap" / f"{frame}.png").write_bytes(b"damaged")
    data = ("data=folder", f"data.root={root}", "data.workers=0", "data.batch_size=1")
    out = tmp_path / "evaluation"
    for policy in ([], ["coverage=refuse"]):
        assert evaluated(home, out, *data, *policy) == 2
        assert "cannot be read" in capsys.readouterr().err
        assert not out.exists()
    assert evaluated(home, out, *data, "coverage=exclude", "data.name=folder") == 0
    frame, video = counts(out, "frame"), counts(out, "video")
    assert (frame["n_expected"], frame["n_scored"], frame["n_unreadable"]) == (24, 21, 3)
    assert (video["n_expected"], video["n_scored"], video["n_unreadable"]) == (12, 11, 1)
    predictions = read_predictions(out / "predictions/folder.parquet")
    assert predictions.height == 24
    assert predictions["path"].is_sorted()
    assert predictions["content"].null_count() == 0  # the bytes are there
    readable = predictions.filter(outcome=SCORED)
    assert readable["logit"].null_count() == 0
    report(out)


def two_policies(place: Path) -> Path:
    """A complete run, and two with frames that have no score, by two policies."""
    finished(place / "whole", ["method=fmsd"], 0, datasets=("ff",))
    for number, policy in enumerate(("exclude", "as_real")):
        write_covered(place / policy, policy, partial(number), policy)
    return place


def write_covered(
    folder: Path,
    method: str,
    predictions: pl.DataFrame,
    policy: str = "exclude",
    levels: Sequence[str] = ("frame", "video"),
) -> Run:
    """A run with these predictions of one dataset."""
    run = finished(folder, [f"method={method}"], 1, datasets=("ff",))
    facts = {stamp: own for stamp, own in run.record()["stamps"].items() if own["level"] in levels}
    stamps = with_coverage(facts, {"ff": predictions}, policy)
    keys = pl.DataFrame(
        [(own["level"], stamp) for stamp, own in stamps.items()],
        schema=["level", "stamp"],
        orient="row",
    )
    table = compute_results(predictions, "iid", coverage=policy, levels=levels)
    run.write_predictions("ff", predictions)
    run.write_results(table.join(keys, on="level", maintain_order="left"))
    run.write_record(run.record() | {"stamps": stamps})
    return sealed(run)


def test_two_policies_do_not_share_a_column_but_each_may_stand_beside_complete_results(
    tmp_path: Path,
) -> None:
    runs = two_policies(tmp_path / "runs")
    with pytest.raises(
        InputError, match=r"coverage: (exclude and as_real|as_real and exclude)"
    ) as refused:
        report(runs)
    assert "differ='[coverage]'" in str(refused.value)
    report(runs, differ=["coverage"])
    shutil.rmtree(runs / "as_real")
    tidy = report(runs, out=tmp_path / "out", against="fmsd", resamples=50)
    own = tidy.filter(metric="auc", level="video")
    assert own.filter(run="fmsd")["n_scored"].to_list() == [36]
    lost = own.filter(pl.col("run") != "fmsd")
    assert lost["n_scored"].item() < lost["n_expected"].item() == 36
    text = (tmp_path / "out/results.md").read_text()
    assert "of 36 scored" in text
    assert "(coverage=exclude)" in text


def test_differences_are_paired_only_between_the_same_videos(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    finished(runs / "whole", ["method=fmsd"], 0, datasets=("ff",))
    frames_lost = frames("ff", (), 1).with_columns(
        outcome=pl.when(pl.col("index") == 0).then(pl.lit("failed")).otherwise(pl.lit(SCORED))
    )
    lost = pl.col("outcome") != SCORED
    write_covered(
        runs / "frames", "a", frames_lost.with_columns(logit=pl.when(~lost).then("logit"))
    )
    write_covered(runs / "videos", "b", partial(1))
    write_covered(runs / "filled", "c", partial(1), "as_real")
    rows = {row.label: row for row in load_rows(runs)}
    identities = {label[-1]: row.ranked_identity("ff", "video") for label, row in rows.items()}
    assert identities["d"] == identities["a"] == identities["c"] != identities["b"]
    report(runs, out=tmp_path / "out", against="method=fmsd", resamples=50, differ=["coverage"])
    text = (tmp_path / "out/results.md").read_text()
    difference = lines(text[text.index("AUC per video minus") :])
    shown = {line[0][-1:]: line[1] for line in difference}
    assert shown["b"] == "-"
    assert shown["a"].startswith(("+", "-0"))
    assert shown["c"].startswith(("+", "-0"))


def test_tables_of_groups_and_of_forgeries_show_what_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Counted from the videos; a group without any score is named, not dropped."""
    lost = pl.col("video").str.ends_with("/11") | (pl.col("domain") == "puppet")
    odd = pl.when(pl.col("video").str.ends_with("1")).then(pl.lit("b")).otherwise(pl.lit("a"))
    predictions = partial(2).with_columns(
        outcome=pl.when(lost).then(pl.lit("no_face")).otherwise("outcome"),
        logit=pl.when(~lost).then("logit"),
    )
    quality = predictions.with_columns(quality=pl.when(lost).then(pl.lit("raw")).otherwise(odd))
    quality.select("path", "quality").write_csv(tmp_path / "quality.csv")
    run = write_covered(tmp_path / "runs" / "one", "fmsd", predictions)
    run.write_record(run.record() | {"thresholds": {"frame": 0.5, "video": 0.5}})
    sealed(run)
    keys = ["video", "label", "domain", "quality"]
    videos = quality.group_by(keys).agg((pl.col("outcome") == SCORED).any())
    groups = {"by": "quality", "attributes": tmp_path / "quality.csv", "out": tmp_path / "groups"}
    tidy = report(tmp_path / "runs", resamples=0, **groups)
    printed = " ".join(capsys.readouterr().out.split())
    for metric, labels in {"auc": [0, 1], "fpr": [0], "tpr": [1]}.items():
        for group in ("a", "b"):
            own = videos.filter(pl.col("label").is_in(labels), quality=group)
            found = tidy.filter(metric=metric, group=group).row(0, named=True)
            assert (found["n_expected"], found["n_scored"]) == (own.height, own["outcome"].sum())
    assert "% scored" in printed
    assert "without a scored video: ff/raw (14 videos)" in printed
    assert "% scored" in (tmp_path / "groups" / "groups.md").read_text()
    tidy = report(tmp_path / "runs", by="domain", out=tmp_path / "domains", resamples=0)
    own = videos.filter((pl.col("label") == 0) | (pl.col("domain") == "swap"))
    found = tidy.filter(metric="auc", level="video").row(0, named=True)
    assert (found["n_expected"], found["n_scored"]) == (own.height, own["outcome"].sum())
    assert "No fake of ff, puppet has a score." in caplog.text
    assert "% scored" in (tmp_path / "domains" / "domains.md").read_text()


def test_results_of_whole_videos_stand_beside_others(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    finished(runs / "own", ["method=fmsd"], 0, datasets=("ff",))
    whole = frames("ff", (), 1).with_columns(logit=pl.col("logit").mean().over("video"))
    write_covered(runs / "other", "a", whole, levels=("video",))
    for by in ("dataset", "domain"):
        tidy = report(runs, by=by, out=tmp_path / by, resamples=50)
        assert set(tidy.filter(run="a")["level"]) == {"video"}
    shutil.rmtree(runs / "own")
    report(runs)
    report(runs, out=tmp_path / "alone", resamples=50)
    assert "per frame" not in (tmp_path / "alone/results.md").read_text()


def test_results_of_earlier_versions_without_counts_are_read(tmp_path: Path) -> None:
    run = finished(tmp_path / "runs/old", ["method=fmsd"], 0)
    table = pl.read_csv(run.folder / "results.csv").drop(COUNTS)
    table.write_csv(run.folder / "results.csv")
    sealed(run)
    tidy = report(tmp_path / "runs")
    assert set(tidy.filter(level="video")["n_expected"]) == {36, 24}


def test_an_edited_count_is_named(tmp_path: Path) -> None:
    run = finished(tmp_path / "runs/one", ["method=fmsd"], 0)
    table = pl.read_csv(run.folder / "results.csv")
    table.with_columns(n_missing=pl.lit(3)).write_csv(run.folder / "results.csv")
    with pytest.raises(InputError, match="has the n_missing 3"):
        report(tmp_path / "runs")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda table: table.with_columns(outcome=pl.lit("lost")), "holds other words"),
        (lambda table: table.with_columns(outcome=pl.lit(SCORED)), "lacks values"),
        (lambda table: table.with_columns(logit=pl.lit(1.0, pl.Float32)), "without a score have"),
        (
            lambda table: table.with_columns(outcome=pl.lit(None, pl.String)),
            "lacks values|have one",
        ),
        (lambda table: table.drop("outcome"), "its column 'logit' lacks values"),
    ],
)
def test_damaged_outcomes_are_refused(tmp_path: Path, damage: Any, said: str) -> None:
    damage(partial()).write_parquet(tmp_path / "ff.parquet")
    with pytest.raises(InputError, match=said):
        read_predictions(tmp_path / "ff.parquet")


@pytest.mark.parametrize("domain", ["real", "swap"])
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_test_set_of_one_class_is_refused_before_anything_is_trained_or_scored(
    home: Path, tmp_path: Path, domain: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = grow_tree(tmp_path / "tree")
    shutil.rmtree(root / "test" / domain)
    data = ("data=folder", f"data.root={root}", "data.workers=0")
    place = tmp_path / "out"
    target = [f"hydra.run.dir={place}", *data]
    if verb == "evaluate":
        assert main(["evaluate", f"run={home / 'run'}", *target]) == 2
    else:
        assert main(["train", *target, *SMALL]) == 2
    only = "fake" if domain == "real" else "real"
    said = " ".join(capsys.readouterr().err.split())
    assert f"The test split of folder has only {only} frames, so no AUC exists" in said
    assert not place.exists()


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("data.forgeries=[puppet]", "has only real frames, so no AUC exists"),
        ("data.naming=folder", "Every fake video of folder bears the name of a real one"),
    ],
)
def test_a_choice_that_leaves_one_class_to_test_is_refused_before_training(
    tmp_path: Path, choice: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = grow_tree(tmp_path / "tree", domains=("real", "swap", "puppet"))
    shutil.rmtree(root / "test/puppet")
    place = tmp_path / "run"
    command = ["train", "data=folder", f"data.root={root}", f"hydra.run.dir={place}", *SMALL]
    assert main([*command, choice]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not place.exists()


def test_a_merge_counts_what_its_tests_expect(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert main(training(home / "crops", other, "coverage=exclude", "seed=1")) == 0
    merged = tmp_path / "merged"
    command = ["merge", f"experts=[{home / 'run'},{other}]", "merger=average", f"out={merged}"]
    assert main(command) == 2
    assert not merged.exists()
    assert main([*command, "coverage=as_real"]) == 0
    found = counts(merged, "video")
    assert (found["n_videos"], found["n_expected"], found["n_scored"]) == (15, 15, 12)
    assert Run(merged).record()["stamps"].keys() == set(Run(merged).results()["stamp"])
    report(merged)


def test_the_record_of_a_test_holds_what_its_stamps_say(home: Path) -> None:
    record = json.loads((home / "run/run.json").read_text())
    table = pl.read_csv(home / "run/results.csv")
    assert set(table["stamp"]) == set(record["stamps"])
