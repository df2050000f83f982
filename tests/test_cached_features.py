"""Features that never change are computed once, and nothing else changes."""

import contextlib
import functools
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

from fmsd.data.manifest import Manifest
from fmsd.engine import cached_features
from fmsd.engine.cached_features import use_cached_features
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Learner
from fmsd.engine.learner_settings import LearnerSettings
from fmsd.engine.scorer import Scorer
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.optim.erm import ERM
from fmsd.optim.schedule import cosine
from fmsd.peft import adapter
from fmsd.peft.norm import norm
from fmsd.peft.probe import probe
from tests.conftest import tiny_vit
from tests.test_engine import module, trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def probed(seed: int = 0) -> Detector:
    torch.manual_seed(100)
    model = tiny_vit()
    probe(model)
    torch.manual_seed(seed)
    head = model.last_layer()
    assert isinstance(head, nn.Linear)
    nn.init.normal_(head.weight, std=0.1)
    return model.train()


def use(model: Detector, data: DataModule, shown: int = 1000) -> bool:
    return use_cached_features(
        model, adapter.fingerprint(model), data, shown, CPU, contextlib.nullcontext
    )


def train(model: Detector, data: DataModule, folder: Path) -> dict[str, Any]:
    """The trained weights, and the logits of validation and test frames."""
    learner = Learner(
        model,
        ERM(),
        functools.partial(torch.optim.AdamW, lr=0.05),
        cosine,
        probe(model),
        steps=6,
        settings=LearnerSettings(),
    )
    runner = trainer(folder, max_epochs=3)
    runner.fit(learner, datamodule=data)
    loaders = {"val": data.validation_loader(), "test": data.test_loader("mine")}
    logits = {}
    for name, loader in loaders.items():
        parts: list[Any] = runner.predict(Scorer(model), loader) or []
        logits[name] = torch.cat([part.logit for part in parts])
    contents = torch.cat([batch.content for batch in loaders["test"]])
    return {**adapter.state_dict(model), **logits, "contents": contents}


def count_passes(model: Detector) -> list[int]:
    """The numbers of images that go through the backbone from now on."""
    passes = list[int]()
    model.backbone.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    return passes


@pytest.mark.parametrize("batches", ["shuffle", "balanced"])
def test_weights_and_scores_are_bit_equal_and_the_backbone_runs_once(
    tree: Path, tmp_path: Path, batches: str
) -> None:
    plain = train(probed(), module(tree, batches=batches), tmp_path)
    data = module(tree, batches=batches)
    frames = len(data.splits.train) + len(data.splits.validation) + len(data.tests["mine"])
    for noise_images in (6, 6):  # without a cache, then with it
        model = probed()
        passes = count_passes(model)
        assert use(model, data)
        cached = train(model, data, tmp_path)
        assert plain.keys() == cached.keys()
        for name, value in plain.items():
            assert torch.equal(value, cached[name]), name
        assert sum(passes) == noise_images + frames
        frames = 0


def test_another_seed_uses_them_and_other_weights_frames_or_sizes_do_not(
    tree: Path, cache: Path
) -> None:
    assert use(probed(), module(tree))
    kept = set(cache.iterdir())
    assert use(probed(seed=1), module(tree, seed=1))
    assert set(cache.iterdir()) == kept
    other = probed()
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1e-3)
    assert use(other, module(tree))
    assert len(set(cache.iterdir()) - kept) == len(kept)
    first = next(path for path in sorted(tree.rglob("*.png")) if "train" in path.parts)
    second = next(path for path in sorted(tree.rglob("*.png"), reverse=True))
    before = set(cache.iterdir())
    first.write_bytes(second.read_bytes())
    assert use(probed(), module(tree))
    assert len(set(cache.iterdir()) - before) == 1  # that of the training frames


def test_features_that_change_are_not_kept(tree: Path, cache: Path) -> None:
    assert not use(probed(), module(tree, augment="light"))
    adapted = probed()
    norm(adapted)
    assert not use(adapted.train(), module(tree))
    dropped = tiny_vit(drop_rate=0.5)
    probe(dropped)
    assert not use(dropped.train(), module(tree))
    assert not use(probed(), module(tree), shown=1)
    assert not cache.exists()


def test_a_file_that_changes_meanwhile_is_refused_and_nothing_is_kept(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_, last = sorted((tree / "train").rglob("*.png"))
    digests = cached_features.read_contents

    def change_after(manifest: Manifest) -> pl.DataFrame:
        found = digests(manifest)
        first.write_bytes(last.read_bytes())
        return found

    monkeypatch.setattr(cached_features, "read_contents", change_after)
    with pytest.raises(InputError, match="1 of the training frames are not what they were"):
        use(probed(), module(tree))
    assert not cache.exists()


def test_a_test_dataset_with_a_damaged_image_keeps_its_pixels(tree: Path) -> None:
    damaged = next(path for path in sorted(tree.rglob("*.png")) if "test" in path.parts)
    damaged.write_bytes(damaged.read_bytes()[:40])
    data = module(tree)
    assert use(probed(), data)
    assert set(data.features) == {"train", "val"}
    with pytest.raises(InputError):
        list(data.test_loader("mine"))
