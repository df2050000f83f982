"""Properties of files that give the label away."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fmsd.data.audit.inspect_file import estimate_jpeg_quality
from fmsd.data.sources import table
from fmsd.metrics.shortcuts import categorical_auc, find_shortcuts
from tests.copies import TREE, examined, module, noise, write


def portraits(root: Path, quality: Callable[[int], int], count: int = 12) -> Path:
    """Lone images of a test split, written with a quality that may depend on their label."""
    for label, domain in enumerate(("real", "gan")):
        for number in range(count):
            write(
                root / "test" / domain / f"{number:04d}.jpg",
                noise(1000 * label + number),
                quality(label),
            )
    return root


def test_a_quality_that_differs_by_label_is_found_and_named(tmp_path: Path) -> None:
    report = examined(
        module(portraits(tmp_path / "x", lambda label: 50 if label else 95), TREE), tmp_path
    )
    assert set(report["findings"]) == {"strong shortcuts"}
    found = {one["property"]: one for one in report["shortcuts"]}
    worst = found["JPEG quality"]
    assert (worst["auc"], worst["says"], worst["split"], worst["videos"]) == (
        1.0,
        "fakes have a lower JPEG quality",
        "test",
        24,
    )
    assert found["file size"]["says"] == "fakes have smaller files"
    assert not {"width", "height", "aspect", "frames", "file type", "chroma subsampling"} & set(
        found
    )


def test_balanced_data_offers_no_shortcut(tmp_path: Path) -> None:
    assert (
        examined(module(portraits(tmp_path / "x", lambda label: 80), TREE), tmp_path)["findings"]
        == {}
    )


def test_file_types_are_told(tmp_path: Path) -> None:
    root = portraits(tmp_path / "x", lambda label: 90)
    for path in (root / "test" / "gan").iterdir():
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    found = {one["property"]: one for one in examined(module(root, TREE), tmp_path)["shortcuts"]}
    assert (found["file type"]["says"], found["file type"]["auc"]) == (
        "fakes are more often PNG",
        1.0,
    )
    assert "JPEG quality" not in found  # only reals have one


def test_the_auc_of_a_property_is_that_of_all_pairs_of_videos() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    value = rng.integers(0, 6, 200) - 3 * label
    kind = np.where(rng.random(200) < 0.2 + 0.6 * label, "png", "jpg")
    videos = pl.DataFrame(
        {
            "dataset": "d",
            "split": "test",
            "label": label,
            "width": value,
            "sharpness": rng.random(200),
            "file type": kind,
        }
    )

    def pairs(score: np.ndarray) -> float:
        fake, real = score[label == 1][:, None], score[label == 0][None]
        return float((fake > real).mean() + (fake == real).mean() / 2)

    found = {one.property: one for one in find_shortcuts(videos)}
    assert set(found) == {"width", "file type"}
    assert found["width"].auc == pytest.approx(1 - pairs(value))
    assert found["width"].direction == "fakes are narrower"
    assert (
        find_shortcuts(
            videos.with_columns(width=pl.lit(3), sharpness=pl.lit(0.5)).drop("file type")
        )
        == []
    )
    few = videos.head(6)
    assert find_shortcuts(few.with_columns(width="label")) == []  # six videos prove nothing


def test_the_auc_of_a_word_is_that_of_pairs_that_are_left_out_one_by_one() -> None:
    rng = np.random.default_rng(1)
    label, word = rng.integers(0, 2, 40), rng.integers(0, 9, 40)

    def share(one: int, *left_out: int) -> float:
        rest = np.delete(np.arange(40), left_out)
        alike = rest[word[rest] == word[one]]
        return float(label[alike if len(alike) else rest].mean())

    wins = [
        0.5
        if word[fake] == word[real]
        else (1 + np.sign(share(fake, fake, real) - share(real, fake, real))) / 2
        for fake in np.flatnonzero(label == 1).tolist()
        for real in np.flatnonzero(label == 0).tolist()
    ]
    assert categorical_auc(pl.DataFrame({"label": label, "value": word})) == pytest.approx(
        np.mean(wins)
    )
    assert categorical_auc(pl.DataFrame({"label": label, "value": "png"})) == 0.5
    assert categorical_auc(pl.DataFrame({"label": label, "value": label})) == 1.0
    assert categorical_auc(pl.DataFrame({"label": [0, 1], "value": ["a", "b"]})) == 0.5


@pytest.mark.parametrize("kinds", [1, 2, 5, 60, 100])
def test_words_at_random_are_no_shortcut_and_those_that_follow_the_label_are_one(
    kinds: int,
) -> None:
    rng = np.random.default_rng(kinds)
    videos = pl.DataFrame({"dataset": "d", "split": "test", "label": np.repeat([0, 1], 50)})
    areas = []
    for _ in range(100):
        word = rng.integers(0, kinds, 100)
        chance = videos.with_columns(pl.Series("file type", word.astype(str)))
        areas.append(categorical_auc(chance.select("label", value="file type")))
        assert [one for one in find_shortcuts(chance) if one.auc >= 0.8] == []
    assert np.mean(areas) == pytest.approx(0.5, abs=0.04)
    told = videos.with_columns(
        pl.Series(
            "file type",
            [
                f"{label} {number % max(kinds // 5, 1)}"
                for number, label in enumerate(videos["label"])
            ],
        )
    )
    (found,) = find_shortcuts(told)
    assert found.auc == 1.0


@pytest.mark.parametrize("quality", [1, 5, 20, 50, 75, 90, 95, 100])
def test_the_jpeg_quality_is_read_from_the_tables(quality: int, tmp_path: Path) -> None:
    with Image.open(write(tmp_path / "x.jpg", noise(0), quality)) as stored:
        assert estimate_jpeg_quality(stored.quantization[0]) == quality  # pyright: ignore[reportAttributeAccessIssue]


def test_the_known_shortcuts_of_real_faces_are_found(real_data: Path, tmp_path: Path) -> None:
    data = module(real_data / "faces", functools.partial(table.scan, file="manifest.csv"))
    data = replace(data, test=["progan", "inpaint"])
    report = examined(data, tmp_path, frames=None)
    assert report["fatal"] == 0
    assert report["opened"] == 1200
    found = {one["property"]: one["says"] for one in report["shortcuts"]}
    assert {one["dataset"] for one in report["shortcuts"]} == {"progan"}
    assert {
        "saturation": "fakes are more colourful",
        "file size": "fakes have larger files",
        "sharpness": "fakes are sharper",
    }.items() <= found.items()
