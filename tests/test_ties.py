"""Equal images have equal logits, and no other logit is changed."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import nn

from fmsd.data.content import content_digest
from fmsd.data.frame import SCHEMA
from fmsd.data.loading.corruptions import Corruption
from fmsd.data.loading.dataset import FrameDataset, signed
from fmsd.data.manifest import Manifest
from fmsd.engine.predictions import (
    FLOAT32_NOISE,
    NOISE,
    flatten_noise,
    gather_predictions,
    tie_equal_files,
    with_logits,
)
from fmsd.engine.scorer import score_batch
from fmsd.engine.scoring import score_datasets
from fmsd.metrics.table import compute_results
from fmsd.metrics.video import aggregate_videos
from fmsd.runs.folder import Run
from fmsd.runs.predictions import read_predictions
from fmsd.types import Frames, Predictions
from tests.runs import frames
from tests.test_engine import module

SHARES = {"32-true": FLOAT32_NOISE, "64-true": FLOAT32_NOISE, **NOISE}


def normal(count: int, scale: float, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(0, scale, count).astype(np.float32))


def listed() -> Manifest:
    """97 frames in videos of unequal lengths."""
    table = (
        frames("ff", (), 0)
        .sort("video", "index")
        .head(97)
        .with_columns(pair=pl.lit(""), audio=pl.lit(""))
    )
    return Manifest(table.select(SCHEMA.names()).cast(SCHEMA), Path())


def aucs(predictions: pl.DataFrame) -> list[float]:
    """The AUC by frames and by videos."""
    return compute_results(predictions, "", metrics=["auc"])["value"].to_list()


@pytest.mark.parametrize("precision", SHARES)
@pytest.mark.parametrize("batch", [1, 5, 24, 97])
def test_equal_files_tie_at_both_levels_whatever_the_batch(precision: str, batch: int) -> None:
    manifest = listed()
    row = torch.arange(len(manifest))
    errors = normal(len(manifest), 1.0)[row // batch]  # those of the frames of a batch are equal
    for size in (0.001, 1.0, 30.0):
        logit = size * (1 + 0.01 * errors)  # errors of any size
        scores = Predictions(row, logit, torch.full_like(row, -7))
        predictions = with_logits(manifest, scores, precision)
        assert aucs(predictions) == [0.5, 0.5]
        assert predictions["logit"][0] in logit


def test_the_logit_of_equal_files_is_one_of_theirs_in_any_order() -> None:
    logit, content = normal(500, 4.0), torch.randint(-5, 5, (500,))
    tied = tie_equal_files(logit, content)
    for value in content.unique():
        own = logit[content == value]
        assert torch.equal(tied[content == value], own.median().expand(len(own)))
    order = torch.randperm(500)
    assert torch.equal(tie_equal_files(logit[order], content[order]), tied[order])
    assert torch.equal(tie_equal_files(tied, content), tied)


class MeanOfPixels(LightningModule):
    """Scores an image by its mean, and by the size of its batch in the last bits."""

    def predict_step(self, batch: Frames, index: int) -> Predictions:
        return score_batch(
            lambda image: image.float().mean((1, 2, 3)) / 255 + 1e-6 * len(image), batch
        )


def test_equal_files_tie_in_a_test_and_are_different_images_under_a_corruption(
    tree: Path, tmp_path: Path
) -> None:
    files = sorted((tree / "test").rglob("*.png"))
    for number, path in enumerate(files[2:]):  # two images, each in real and fake videos
        shutil.copy(files[number % 2], path)
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, barebones=True)
    run, data = Run(tmp_path / "run"), module(tree, batch_size=3)
    record = {"selection": "iid", "thresholds": None, "stamps": {}, "overlap": {"mine": 0}}
    found = {}
    for corruption in (None, Corruption("noise", 3), Corruption("blur", 3)):
        score_datasets(run, record, trainer, MeanOfPixels(), data, corruption)
        folder = f"predictions/{corruption.name}_3" if corruption else "predictions"
        found[corruption and corruption.name] = read_predictions(
            run.folder / folder / "mine.parquet"
        )
    assert aucs(found[None]) == [0.5, 0.5]
    assert found[None]["logit"].n_unique() == found[None]["content"].n_unique() == 2
    assert found["noise"]["logit"].n_unique() == len(files)
    assert found["blur"]["logit"].n_unique() == 4  # two images in batches of 3 and of 2


@pytest.mark.parametrize(
    ("precision", "spread"),
    [("bf16-mixed", 1e-3), ("16-mixed", 1e-3), ("32-true", 1e-5), ("32-true", 4.0)],
)
def test_a_ranking_of_different_files_is_untouched_bit_for_bit(
    precision: str, spread: float
) -> None:
    manifest = listed()
    label = torch.from_numpy(manifest.table["label"].to_numpy(writable=True))
    logit = normal(len(manifest), spread) + 1.2 * spread * label
    row = torch.arange(len(manifest))
    for sign in (1, -1):
        predictions = with_logits(manifest, Predictions(row, sign * logit, row), precision)
        assert predictions["logit"].to_numpy().tobytes() == (sign * logit).numpy().tobytes()
    raw = manifest.table.with_columns(logit=pl.Series(logit.numpy()))
    assert 0.7 < aucs(raw)[0] < 0.9


@pytest.mark.parametrize(("precision", "share"), SHARES.items())
@pytest.mark.parametrize("size", [-40.0, -1.0, 0.0, 0.3, 1.0, 7.0])
def test_a_constant_with_the_noise_of_a_forward_pass_is_constant(
    precision: str, share: float, size: float
) -> None:
    noise = max(share * abs(size), FLOAT32_NOISE)
    errors = normal(500, 1.0).clamp(-1, 1)
    flat = flatten_noise(size + 0.45 * noise * errors, precision)
    assert flat.unique().numel() == 1
    assert float((flat - size).abs().max()) <= noise
    above = size + 1.1 * noise * errors
    assert above.unique().numel() > 1
    assert torch.equal(flatten_noise(above, precision), above)


@pytest.mark.parametrize(("precision", "kind"), [("bf16-mixed", "bfloat16"), ("16-mixed", "half")])
def test_the_last_bit_of_a_low_precision_is_noise(precision: str, kind: str) -> None:
    value = torch.linspace(0.1, 9, 300).to(getattr(torch, kind))
    for one, next_ in zip(value, torch.nextafter(value, torch.full_like(value, 99)), strict=True):
        assert flatten_noise(torch.stack([one, next_]).float(), precision).unique().numel() == 1


def black_frames(folder: Path, real: str, fake: str) -> Manifest:
    """97 black images: those of real videos in one format, those of fake videos in another."""
    table = listed().table
    paths = [f"{number}.{fake if label else real}" for number, label in enumerate(table["label"])]
    for path in paths:
        Image.new("RGB", (40, 40)).save(folder / path)
    return Manifest(table.with_columns(path=pl.Series(paths)), folder)


@pytest.mark.parametrize(("real", "fake"), [("png", "jpg"), ("jpg", "png"), ("png", "png")])
@pytest.mark.parametrize("batch", [7, 24])
def test_a_test_set_of_black_images_is_chance(
    tmp_path: Path, real: str, fake: str, batch: int
) -> None:
    manifest = black_frames(tmp_path, real, fake)
    contents = {content_digest((tmp_path / path).read_bytes()) for path in manifest.table["path"]}
    assert len(contents) == len({real, fake})
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 7), nn.GELU(), nn.Flatten(), nn.Linear(16 * 18**2, 99), nn.Linear(99, 1)
    ).eval()
    dataset = FrameDataset(manifest, manifest.table["domain"].unique().sort().to_list(), 24)
    loader = torch.utils.data.DataLoader(
        dataset, batch, collate_fn=lambda parts: Frames(*map(torch.stack, zip(*parts, strict=True)))
    )
    with torch.no_grad():
        batches = [
            score_batch(
                # other sizes of a batch take other kernels; 0.000001 a frame is much for that
                lambda image: network(image.float() - 90).squeeze(-1) + 1e-6 * len(image),
                part,
            )
            for part in loader
        ]
    scores = gather_predictions(batches)
    assert scores.logit.unique().numel() > 1
    assert set(scores.content.tolist()) == {signed(content) for content in contents}
    predictions = with_logits(manifest, scores, "32-true")
    assert predictions["logit"].n_unique() == 1
    assert aucs(predictions) == [0.5, 0.5]


def test_a_detector_that_tells_formats_apart_is_not_flattened(tmp_path: Path) -> None:
    manifest = black_frames(tmp_path, "png", "jpg")
    row = torch.arange(len(manifest))
    label = torch.from_numpy(manifest.table["label"].to_numpy(writable=True))
    scores = Predictions(row, 0.01 * label + normal(len(row), 1e-7), label)
    predictions = with_logits(manifest, scores, "32-true")
    assert aucs(predictions) == [1.0, 1.0]
    assert predictions["logit"].n_unique() == 2


def test_videos_of_one_image_tie_whatever_their_lengths() -> None:
    for score in np.random.default_rng(0).random(50):
        videos = [f"{length}" for length in range(1, 40) for _ in range(length)]
        table = pl.DataFrame({"video": videos, "label": 0, "score": score})
        for kind in ("mean", "median", "max", "top5"):
            assert aggregate_videos(table, kind)["score"].n_unique() == 1
