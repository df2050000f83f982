"""A training from its preparation to its last step, without a command."""

import contextlib
import copy
import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from fmsd.engine.learner_settings import LearnerSettings
from fmsd.engine.model_selection import model_choice
from fmsd.engine.session import (
    Components,
    Plan,
    Request,
    Session,
    build_session,
    build_setup,
    log_sizes,
    run_session,
)
from fmsd.engine.trainer import build_training_trainer
from fmsd.engine.training_order import BATCHES, SHARDS
from fmsd.losses.detection import DetectionLoss
from fmsd.losses.loss import Loss, Outputs
from fmsd.optim.erm import ERM
from fmsd.optim.schedule import cosine
from fmsd.peft.norm import norm
from tests.conftest import grow_tree, tiny_vit
from tests.test_losses import LOSSES
from tests.test_pairs import data as paired_data


@dataclass(frozen=True)
class Watched:
    """Binary cross-entropy that notes the progress of the training."""

    seen: list[float] = field(default_factory=list)
    terms: Sequence[str] = ("classification",)
    needs_features: bool = False
    needs_strong_view: bool = False

    def __call__(self, outputs: Outputs) -> Mapping[str, Tensor]:
        self.seen.append(outputs.progress)
        return DetectionLoss()(outputs)


@pytest.fixture(scope="module")
def forgeries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two forgeries beside real frames: 36 training frames, 24 of them fake."""
    return grow_tree(
        tmp_path_factory.mktemp("forgeries"), domains=("real", "swap", "blend"), videos=6
    )


def prepared(
    root: Path, folder: Path, batches: str, loss: Loss | None = None, accumulate: int = 1
) -> Session:
    """A training of two epochs, of a ViT on frames of which one real video is in no pair."""
    data = paired_data(root, absent="train5", batches=batches)
    choice = model_choice("last", None, 0, folder / "checkpoints")
    factory = functools.partial(Trainer, accelerator="cpu", max_epochs=2, enable_progress_bar=False)
    trainer = build_training_trainer(factory, folder, data, choice)
    request = Request("norm", folder, "seed: 0", [], [], {})
    setup = build_setup(request, Plan(select="last", save_every=None), data, trainer, choice, 0.0)
    parts = Components(
        detector=tiny_vit,
        method=norm,
        wrapper=ERM(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1),
        schedule=functools.partial(cosine, warmup=0.0),
        data=lambda **_: data,
        trainer=factory,
        loss=loss or DetectionLoss(),
    )
    return build_session(setup, parts, LearnerSettings(accumulate=accumulate))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("batches", [name for name in BATCHES if name != SHARDS])
def test_the_schedule_ends_with_the_last_step_whatever_the_batches(
    batches: str, accumulate: int, forgeries: Path, tmp_path: Path
) -> None:
    loss = Watched()
    session = prepared(forgeries, tmp_path, batches, loss, accumulate)
    assert run_session(session, []).finished
    steps = session.learner.steps
    assert session.setup.trainer.global_step == steps
    progress = sorted(set(loss.seen))
    assert progress == [step / steps for step in range(steps)]


@pytest.mark.parametrize(("batches", "frames"), [("shuffle", 36), ("pairs", 30)])
def test_the_log_counts_the_frames_that_training_shows(
    batches: str, frames: int, forgeries: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = prepared(forgeries, tmp_path, batches)
    with caplog.at_level(logging.INFO, "fmsd"):
        log_sizes(session)
    assert f"are trained on {frames} frames; " in caplog.text


class Fails(Callback):
    """Raises an error in the second step."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 1:
            raise ArithmeticError


@pytest.mark.parametrize("fails", [False, True])
def test_a_detector_that_was_trained_keeps_no_graph_of_later_passes(
    fails: bool, forgeries: Path, tmp_path: Path
) -> None:
    session = prepared(forgeries, tmp_path, "pairs", LOSSES["gend"])
    session.learner.callbacks += [Fails()] if fails else []
    with pytest.raises(ArithmeticError) if fails else contextlib.nullcontext():
        run_session(session, [])
    capture, model = session.learner.capture, session.adapted.model
    assert capture is not None
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert capture.seen is None
    copied = copy.deepcopy(model)
    assert not any(module._forward_pre_hooks for module in copied.modules())
