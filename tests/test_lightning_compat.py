"""The undocumented parts of Lightning that the engine relies on: a release that changes one fails
here.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import distributed

from fmsd.engine.distributed import UnwrappedDDPStrategy
from fmsd.engine.lightning_compat import (
    LightningExit,
    fit_position,
    forward_context,
    log_at_least_every,
    logged_step,
    move_best_checkpoint,
    set_csv_columns,
    setup_processes,
)
from tests.test_engine import learner, module, trainer


class Notes(Callback):
    """Notes the position and the logged step where checkpoints may be written."""

    def __init__(self) -> None:
        self.positions: list[tuple[str, tuple[int, int], int]] = []

    def note(self, moment: str, trainer: Trainer) -> None:
        self.positions.append((moment, fit_position(trainer), logged_step(trainer)))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.note("batch", trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.note("epoch", trainer)


def test_the_position_is_that_of_the_next_batch(tree: Path, tmp_path: Path) -> None:
    """Four training frames in the tree's two videos a domain: eight frames, two batches of four."""
    notes = Notes()
    trainer(tmp_path, max_epochs=2, callbacks=[notes]).fit(learner(), datamodule=module(tree))
    moments = [(moment, position) for moment, position, _ in notes.positions]
    assert moments == [
        ("batch", (0, 1)),
        ("batch", (1, 0)),
        ("epoch", (1, 0)),
        ("batch", (1, 1)),
        ("batch", (2, 0)),
        ("epoch", (2, 0)),
    ]
    steps = [step for _, _, step in notes.positions]
    assert steps == sorted(steps)
    assert len(set(steps)) == 4


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_a_forward_pass_has_the_precision_of_the_trainer(
    precision: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    with forward_context(trainer(tmp_path, precision=precision)):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_csv_logger_goes_on_with_given_columns(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="logs", version="")
    set_csv_columns(logger, ["a", "b", "step"])  # a logger sorts them
    file = tmp_path / "logs" / "metrics.csv"
    file.write_text("a,b,step\n2.0,1.0,0\n")
    logger.log_metrics({"a": 3.0}, step=1)
    logger.save()
    assert file.read_text().splitlines() == ["a,b,step", "2.0,1.0,0", "3.0,,1"]


@pytest.mark.filterwarnings("error:The dirpath has changed")
def test_the_best_checkpoint_is_found_in_another_folder(tree: Path, tmp_path: Path) -> None:
    before, after = (
        ModelCheckpoint(tmp_path / place, filename="best", monitor="val/loss")
        for place in ("before", "after")
    )
    worker = trainer(tmp_path, enable_checkpointing=True, callbacks=[before])
    worker.fit(learner(), datamodule=module(tree))
    file = tmp_path / "after" / "best.ckpt"
    state = before.state_dict()
    after.load_state_dict(move_best_checkpoint(state, file))
    assert (after.best_model_path, after.kth_best_model_path) == (str(file), str(file))
    assert after.best_k_models == {str(file): before.best_model_score}
    assert before.best_model_score is not None
    assert after.best_model_score == before.best_model_score
    assert str(tmp_path / "before") not in str(after.state_dict())
    empty = move_best_checkpoint(state | {"best_model_score": None}, file)
    assert (empty["best_model_path"], empty["best_k_models"]) == ("", {})


class Interrupting(Callback):
    """Presses Ctrl-C in the first batch."""

    def on_train_batch_start(self, *_: Any) -> None:
        raise KeyboardInterrupt  # what Python's handler of Ctrl-C does


def test_ctrl_c_ends_a_fit_by_the_exception_that_is_expected(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(LightningExit):
        trainer(tmp_path, callbacks=[Interrupting()]).fit(learner(), datamodule=module(tree))


def test_processes_are_set_up_before_a_fit_and_the_model_stays_unwrapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "WORLD_SIZE": "1"}
    for name, value in (place | {"LOCAL_RANK": "0", "RANK": "0", "NODE_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    worker = trainer(tmp_path, strategy=UnwrappedDDPStrategy(), devices=1)
    model = learner()
    try:
        setup_processes(worker)
        assert distributed.is_initialized()
        worker.strategy.model = model
        worker.strategy.configure_ddp()  # pyright: ignore[reportAttributeAccessIssue]
        assert worker.strategy.model is model
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


@pytest.mark.filterwarnings("error:The number of training batches")
def test_a_short_training_logs_in_every_epoch(tree: Path, tmp_path: Path) -> None:
    curves = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    worker = trainer(tmp_path, logger=curves, limit_train_batches=2, log_every_n_steps=10)
    log_at_least_every(worker, 2)
    worker.fit(learner(), datamodule=module(tree))
    assert "train/loss" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
    wide = trainer(tmp_path, log_every_n_steps=1)
    log_at_least_every(wide, 2)
    assert wide.log_every_n_steps == 1  # pyright: ignore[reportAttributeAccessIssue]
