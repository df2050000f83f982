"""Groups of videos by any column: what is compared with what, and resamples that are paired."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from fmsd.metrics.groups import UNKNOWN, resample_groups, split_groups
from fmsd.metrics.table import results_by_domain, scores_by_dataset
from fmsd.metrics.video import aggregate_videos
from tests.runs import frames


def scored(dataset: str = "ff", naming: str = "id") -> pl.DataFrame:
    ((_, table),) = scores_by_dataset(frames(dataset, (), 0), naming)
    return table


def with_gender(table: pl.DataFrame) -> pl.DataFrame:
    """Videos are of one of two groups by the last digit of their name."""
    return table.with_columns(
        gender=pl.when(pl.col("video").str.contains("[02468]$"))
        .then(pl.lit("f"))
        .otherwise(pl.lit("m"))
    )


def auc(real: np.ndarray, fake: np.ndarray) -> float:
    labels = np.repeat([0, 1], [len(real), len(fake)])
    return float(roc_auc_score(labels, np.concatenate([real, fake])))


def test_a_column_of_both_classes_compares_fakes_with_reals_of_their_group() -> None:
    table = with_gender(scored())
    groups = split_groups(table, "gender")
    assert list(groups) == ["f", "m"]
    for name, group in groups.items():
        videos = aggregate_videos(table.filter(gender=name))
        real, fake = (videos.filter(label=label)["score"].to_numpy() for label in (0, 1))
        values = group.measured(0.6)
        assert values["auc"] == pytest.approx(auc(real, fake), abs=1e-12)
        assert values["fpr"] == (real >= 0.6).mean()
        assert values["tpr"] == (fake >= 0.6).mean()
        assert group.counts("auc") == (len(real), len(fake))
        assert group.measured(None).keys() == {"auc"}


@pytest.mark.parametrize("naming", ["id", "folder"])
def test_a_column_of_fakes_alone_compares_them_with_all_reals(naming: str) -> None:
    table = scored(naming=naming)
    if naming == "folder":  # leave fakes whose names no real video bears
        keep = (pl.col("label") == 0) | (pl.col("domain") != "swap") | (pl.col("index") < 2)
        table = table.filter(keep).with_columns(
            video=pl.when((pl.col("label") == 1) & (pl.col("video") >= "5"))
            .then(pl.format("x{}", "video"))
            .otherwise("video")
        )
        expected = {
            domain: roc_auc_score(videos["label"], videos["score"])
            for domain in ("swap", "puppet")
            for videos in [
                aggregate_videos(
                    table.filter((pl.col("label") == 0) | (pl.col("domain") == domain))
                )
            ]
        }
    else:
        results = results_by_domain(frames("ff", (), 0)).filter(level="video", metric="auc")
        expected = dict(results.select("domain", "value").iter_rows())
    groups = split_groups(table, "domain")
    found = {name: group.measured(0.5) for name, group in groups.items()}
    assert {name: values["auc"] for name, values in found.items() if "auc" in values} == (
        pytest.approx(expected)
    )
    assert "tpr" not in found["real"]
    assert "fpr" in found["real"]


def test_reals_alone_are_known_gives_rates_and_no_comparison_with_few() -> None:
    table = with_gender(scored()).with_columns(
        gender=pl.when(pl.col("label") == 0).then("gender").otherwise(pl.lit(UNKNOWN))
    )
    groups = split_groups(table, "gender")
    assert {name: set(group.measured(0.5)) for name, group in groups.items()} == {
        UNKNOWN: {"auc", "tpr"},
        "f": {"fpr"},
        "m": {"fpr"},
    }


def test_resamples_are_those_of_the_values_and_rows_are_paired() -> None:
    groups = split_groups(with_gender(scored()), "gender")
    found = resample_groups(groups, 0.6, 4000, "ff")
    for (value, name), samples in found.items():
        observed = groups[name].measured(0.6)[value]
        assert samples.mean() == pytest.approx(observed, abs=0.01)
        if value != "auc":
            count = groups[name].counts(value)[0]
            assert samples.var() == pytest.approx(observed * (1 - observed) / count, rel=0.15)
    other = split_groups(with_gender(scored()).with_columns(score=1 - pl.col("score")), "gender")
    mirrored = resample_groups(other, None, 4000, "ff")
    np.testing.assert_allclose(mirrored["auc", "f"], 1 - found["auc", "f"], atol=1e-12)


def test_shared_reals_are_drawn_once_and_groups_apart_from_each_other() -> None:
    table = scored()
    copies = table.filter(domain="puppet").with_columns(
        domain=pl.lit("copy"), video=pl.format("{}copy", "video")
    )
    shared = resample_groups(split_groups(pl.concat([table, copies]), "domain"), None, 4000, "a")
    correlation = np.corrcoef(shared["auc", "puppet"], shared["auc", "copy"])[0, 1]
    assert 0.1 < correlation < 0.9  # reals alike, fakes not
    halves = resample_groups(split_groups(with_gender(table), "gender"), None, 4000, "a")
    assert abs(np.corrcoef(halves["auc", "f"], halves["auc", "m"])[0, 1]) < 0.06
