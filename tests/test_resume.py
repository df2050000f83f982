"""Training that is interrupted and goes on: the same losses and weights, bit for bit, as if nothing
had happened.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from fmsd.engine.checkpoints import (
    LAST,
    PREVIOUS,
    AtomicCheckpointIO,
    Best,
    Recovery,
    newest_checkpoint,
    read_checkpoint,
)
from fmsd.engine.curve_log import curve_logger
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Learner
from fmsd.engine.learner_settings import LearnerSettings
from fmsd.engine.lightning_compat import LightningExit, leave_signals_alone
from fmsd.engine.model_selection import MONITOR, Patience, ValidationMetrics
from fmsd.errors import InputError
from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.optim.schedule import cosine
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.peft.method import Method
from fmsd.signals import signals_handled
from tests.conftest import METHODS, UNFOLDABLE, fmsd_here, grow_tree, tiny_vit, write_image
from tests.surroundings import python_path
from tests.test_engine import learner, module, trainer

pytestmark = pytest.mark.slow

WRAPPERS: dict[str, OptimizerWrapper] = {"erm": ERM(), "sam": SAM(), "sagm": SAGM(), "roga": RoGA()}


class Killed(Exception):  # noqa: N818
    """Takes the place of SIGKILL: nothing is saved after it."""


class Watch(Callback):
    """Notes the loss of every step; dies before the given one, or after so many batches."""

    def __init__(self, until: int | None, batches: int | None) -> None:
        self.until, self.batches, self.losses = until, batches, {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.until or self.batches == 0:
            raise Killed
        self.batches = None if self.batches is None else self.batches - 1

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if "train/loss" in trainer.callback_metrics:
            self.losses[trainer.global_step] = float(trainer.callback_metrics["train/loss"])


class Sends(Callback):
    """Sends a signal to this process in the middle of the third step."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("number", "saved"), [(signal.SIGUSR1, 3), (signal.SIGTERM, 3), (signal.SIGINT, None)], ids=str
)
def test_a_signal_of_a_queue_saves_at_the_end_of_the_step(
    number: int, saved: int | None, accumulate: int, tree: Path, tmp_path: Path
) -> None:
    callbacks = [Sends(number), Recovery(tmp_path / "new", None)]
    worker = trainer(tmp_path, callbacks=callbacks, enable_checkpointing=True)
    leave_signals_alone(worker)
    with signals_handled(), pytest.raises(LightningExit):
        worker.fit(learner(accumulate=accumulate), datamodule=module(tree, batch_size=1))
    checkpoint = newest_checkpoint(tmp_path / "new")
    assert (checkpoint and read_checkpoint(checkpoint)["global_step"]) == saved


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two forgeries; 36 training frames."""
    return grow_tree(tmp_path_factory.mktemp("tree"), domains=("real", "swap", "blend"), videos=6)


def data_module(faces: Path) -> DataModule:
    return module(faces, batch_size=8, batches="balanced", augment="light")


def trained(
    data: DataModule,
    folder: Path,
    method: Method,
    wrapper: OptimizerWrapper,
    until: int | None = None,
    accumulate: int = 1,
    batches: int | None = None,
    normalise_head: bool = False,
) -> tuple[Any, Any]:
    """Two epochs of 5 batches with a checkpoint after every step, or what is left of them; the
    losses by step, and the weights.
    """
    torch.manual_seed(0)
    model = tiny_vit(drop_path_rate=0.2, normalise_head=normalise_head)
    adaptation = method(model, None)
    torch.manual_seed(
        time.time_ns() % 2**31
    )  # the state of the generators is no part of what is resumed
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-2)
    learner = Learner(
        model,
        wrapper,
        optimizer,
        cosine,
        adaptation,
        10,
        LearnerSettings(accumulate=accumulate),
        domains=data.training_domains,
    )
    model.train()
    watch = Watch(until, batches)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
    }
    worker = Trainer(
        default_root_dir=folder, max_epochs=2, callbacks=[watch, Recovery(folder, 1)], **quiet
    )  # pyright: ignore
    worker.strategy.checkpoint_io = AtomicCheckpointIO()
    with contextlib.suppress(Killed):
        worker.fit(learner, datamodule=data, ckpt_path=newest_checkpoint(folder), weights_only=True)
    return watch.losses, {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("method", METHODS | UNFOLDABLE)
def test_what_remains_after_a_kill_is_what_it_would_have_been(
    method: str, wrapper: str, faces: Path, tmp_path: Path
) -> None:
    """Killed in the first epoch, at its last step, and in the second epoch, each time going on from
    the checkpoint before.
    """
    losses, weights = trained(
        data_module(faces), tmp_path / "whole", (METHODS | UNFOLDABLE)[method], WRAPPERS[wrapper]
    )
    assert sorted(losses) == list(range(1, 11))
    found: dict[int, float] = {}
    for until in (2, 4, 7, None):
        part, ended = trained(
            data_module(faces),
            tmp_path / "parts",
            (METHODS | UNFOLDABLE)[method],
            WRAPPERS[wrapper],
            until,
        )
        found |= part
    assert found == losses
    assert weights.keys() == ended.keys()
    assert all(torch.equal(weights[name], ended[name]) for name in weights)


def test_a_cosine_head_goes_on_as_if_nothing_had_happened(faces: Path, tmp_path: Path) -> None:
    losses, weights = trained(
        data_module(faces), tmp_path / "whole", METHODS["masm"], RoGA(), normalise_head=True
    )
    part, _ = trained(
        data_module(faces), tmp_path / "parts", METHODS["masm"], RoGA(), 3, normalise_head=True
    )
    rest, ended = trained(
        data_module(faces), tmp_path / "parts", METHODS["masm"], RoGA(), normalise_head=True
    )
    assert part | rest == losses
    assert "backbone.head.log_scale" in weights
    assert all(torch.equal(weights[name], ended[name]) for name in weights)


def test_a_frame_that_was_shown_before_the_kill_is_augmented_as_it_would_have_been(
    faces: Path,
) -> None:
    """The real frames of balanced batches are recycled: the occurrences of the batches that are
    skipped count.
    """
    whole = list(data_module(faces).train_dataloader())
    resumed = data_module(faces)
    resumed.load_state_dict({"epoch": 0, "batch": 3})
    rest = list(resumed.train_dataloader())
    assert all(
        torch.equal(one.image, other.image) for one, other in zip(whole[3:], rest, strict=True)
    )
    before = {row for batch in whole[:3] for row in batch.row.tolist()}
    assert any(row in before for batch in rest for row in batch.row.tolist())


def test_a_loader_is_made_again_at_the_same_position_until_training_has_ended(faces: Path) -> None:
    data = data_module(faces)
    data.load_state_dict({"epoch": 0, "batch": 3})
    assert [len(list(data.train_dataloader())) for _ in range(2)] == [2, 2]
    data.teardown("fit")
    assert len(list(data.train_dataloader())) == 5


class Declining(Callback):
    """Logs a value that is best in the second epoch."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.log(MONITOR, 0.5 - 0.1 * abs(trainer.current_epoch - 1))


def impatient(
    data: DataModule, folder: Path, until: int | None = None
) -> tuple[dict[int, float], Patience, Trainer]:
    """At most nine epochs of 5 batches, or three epochs without a better value, with a checkpoint
    after every second step.
    """
    torch.manual_seed(0)
    watch, waiting = Watch(until, None), Patience(MONITOR, 3)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
    }
    callbacks = [watch, Declining(), waiting, Best(folder, MONITOR), Recovery(folder, 2)]
    worker = Trainer(default_root_dir=folder, max_epochs=9, callbacks=callbacks, **quiet)  # pyright: ignore
    with contextlib.suppress(Killed):
        worker.fit(
            learner(domains=data.training_domains, steps=45),
            datamodule=data,
            ckpt_path=newest_checkpoint(folder),
            weights_only=True,
        )
    return watch.losses, waiting, worker


def test_patience_goes_on_counting_after_a_kill(faces: Path, tmp_path: Path) -> None:
    """Killed before, at and after the best epoch; at last once the run is over, when nothing is
    left to do.
    """
    losses, waiting, worker = impatient(data_module(faces), tmp_path / "whole")
    assert (sorted(losses), waiting.wait_count, waiting.exhausted) == (list(range(1, 26)), 3, True)
    found: dict[int, float] = {}
    for until in (3, 10, 18, 24, None):
        part, _, ended = impatient(data_module(faces), tmp_path / "parts", until)
        found |= part
    assert found == losses
    again, waiting, late = impatient(data_module(faces), tmp_path / "parts")
    assert (again, waiting.exhausted, late.global_step) == ({}, True, 25)
    for other in (ended, late):
        state = other.lightning_module.state_dict()
        assert all(
            torch.equal(value, state[name])
            for name, value in worker.lightning_module.state_dict().items()
        )


@pytest.mark.parametrize("until", [1, 2, 3, 5])
def test_a_kill_between_the_batches_of_a_step_costs_the_step(
    until: int, faces: Path, tmp_path: Path
) -> None:
    """Two batches per step, the fifth of an epoch alone: three steps an epoch."""
    losses, weights = trained(
        data_module(faces), tmp_path / "whole", METHODS["fmsd"], SAM(), accumulate=2
    )
    assert sorted(losses) == list(range(1, 7))
    part, _ = trained(
        data_module(faces), tmp_path / "parts", METHODS["fmsd"], SAM(), until, accumulate=2
    )
    rest, ended = trained(
        data_module(faces), tmp_path / "parts", METHODS["fmsd"], SAM(), accumulate=2
    )
    assert part | rest == losses
    assert all(torch.equal(weights[name], ended[name]) for name in weights)


def test_a_second_kill_before_the_next_step_costs_nothing_either(
    faces: Path, tmp_path: Path
) -> None:
    """Going on with two batches per step must not save between them: the first batch's gradient
    would be lost.
    """
    losses, weights = trained(
        data_module(faces), tmp_path / "whole", METHODS["fmsd"], SAM(), accumulate=2
    )
    found: dict[int, float] = {}
    for batches in (3, 1, None):
        part, ended = trained(
            data_module(faces),
            tmp_path / "parts",
            METHODS["fmsd"],
            SAM(),
            accumulate=2,
            batches=batches,
        )
        found |= part
    assert found == losses
    assert all(torch.equal(weights[name], ended[name]) for name in weights)


def test_the_best_score_is_kept_when_a_run_is_moved(faces: Path, tmp_path: Path) -> None:
    data, one = data_module(faces), Best(tmp_path / "one", MONITOR)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    worker = Trainer(
        default_root_dir=tmp_path, max_epochs=1, callbacks=[ValidationMetrics(data), one], **quiet
    )  # pyright: ignore
    worker.fit(learner(), datamodule=data)
    (tmp_path / "one").rename(tmp_path / "two")
    two = Best(tmp_path / "two", MONITOR)
    two.load_state_dict(one.state_dict())
    assert one.best_model_score is not None
    assert two.best_model_score == one.best_model_score
    assert Path(two.best_model_path) == tmp_path / "two" / "best.ckpt"
    assert Path(two.best_model_path).exists()
    assert not two.check_monitor_top_k(worker, one.best_model_score - 0.01)


@pytest.mark.parametrize("score", [None, torch.tensor(0.5)])
def test_a_checkpoint_names_no_file_that_is_removed_when_a_better_one_comes(
    score: torch.Tensor | None, tmp_path: Path
) -> None:
    best = Best(tmp_path / "checkpoints", MONITOR)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}, "callbacks": {}}, tmp_path / "checkpoints" / "best.ckpt")
    precious = tmp_path / "checkpoints" / ".." / "precious"
    named = ("best_model_path", "kth_best_model_path", "last_model_path")
    state = (
        best.state_dict()
        | {"best_model_score": score, "best_k_models": {str(precious): torch.tensor(0.1)}}
        | dict.fromkeys(named, str(precious))
    )
    best.load_state_dict(state)
    assert {
        best.best_model_path,
        best.kth_best_model_path,
        best.last_model_path,
        *best.best_k_models,
    } <= {
        "",
        str(tmp_path / "checkpoints" / "best.ckpt"),
    }


@pytest.mark.parametrize(
    "damage",
    [lambda text: "", lambda text: text[:-6], lambda text: text.splitlines(keepends=True)[0]],
)
def test_curves_that_a_kill_cut_short_go_on(
    damage: Callable[[str], str], faces: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    trained(data_module(faces), folder / "checkpoints", METHODS["fmsd"], ERM(), until=3)
    file = folder / "logs" / "metrics.csv"
    file.parent.mkdir()
    file.write_text(damage("step,train/loss\n0,0.5\n1,0.25\n2,0.125\n3,0.75\n"))
    logger = curve_logger(folder, folder / "checkpoints" / LAST)
    logger.log_metrics({"train/loss": 1.0, "train/lr": 2.0}, 3)
    logger.save()
    rows = pl.read_csv(file)
    assert rows["step"].to_list() == [*range(len(rows) - 1), 3]
    assert rows["train/loss"].to_list() == [*[0.5, 0.25, 0.125][: len(rows) - 1], 1.0]
    assert len(rows) == (4 if damage("abcdefgh") == "ab" else 1)


def test_a_truncated_checkpoint_is_skipped_with_a_word_for_the_one_before(
    faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    losses, weights = trained(data_module(faces), tmp_path / "whole", METHODS["masm"], RoGA())
    trained(data_module(faces), tmp_path / "parts", METHODS["masm"], RoGA(), until=4)
    last, previous = tmp_path / "parts" / LAST, tmp_path / "parts" / PREVIOUS
    last.write_bytes(last.read_bytes()[:-1000])
    with caplog.at_level("WARNING", "fmsd"):
        assert newest_checkpoint(tmp_path / "parts") == previous
    assert f"The checkpoint {last} cannot be read" in caplog.text
    assert "going on from previous.ckpt" in caplog.text
    rest, ended = trained(data_module(faces), tmp_path / "parts", METHODS["masm"], RoGA())
    assert min(rest) == 4  # step 4 is done again
    assert rest == {step: loss for step, loss in losses.items() if step >= 4}
    assert all(torch.equal(weights[name], ended[name]) for name in weights)
    last.write_bytes(b"")
    previous.unlink()
    with pytest.raises(
        InputError, match=r"No checkpoint in .* can be read; train anew in another folder"
    ):
        newest_checkpoint(tmp_path / "parts")
    assert newest_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("broken", ["new.ckpt", PREVIOUS, LAST])
def test_whatever_file_operation_fails_a_whole_checkpoint_is_left(
    broken: str, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, _ = trained(data_module(faces), tmp_path / "whole", METHODS["fmsd"], ERM())
    original, written = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        written.append(Path(target).name)
        if Path(target).name == broken and len(written) > 8:
            raise OSError("disk full")
        return original(path, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(Path, "replace", replace)
        trained(data_module(faces), tmp_path / "parts", METHODS["fmsd"], ERM())
    rest, _ = trained(data_module(faces), tmp_path / "parts", METHODS["fmsd"], ERM())
    assert 1 < min(rest) < 6
    assert rest == {step: loss for step, loss in losses.items() if step >= min(rest)}


# ---- as a user sees it


TINY = (
    *(
        "data=folder",
        "data.root=data",
        "backbone=vit_tiny",
        "backbone.pretrained=false",
        "backbone.size=32",
        "+backbone.patch_size=8",
    ),
    *("+backbone.embed_dim=24", "+backbone.depth=2", "+backbone.num_heads=2"),
    *(
        "data.batch_size=8",
        "data.workers=1",
        "trainer.max_epochs=3",
        "trainer.log_every_n_steps=1",
        "save_every=1",
    ),
)


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fmsd", "train", *TINY, *overrides]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=masm", "method.every=2", "wrapper=roga"),
        ("method=lora", "method.dropout=0.3", "wrapper=sam", "optimizer=sgd"),
        ("method=bias_consist", "wrapper=sam"),
    ],
)
def test_a_run_that_was_killed_goes_on_to_the_numbers_it_would_have_had(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    whole = fmsd_here("train", *TINY, *overrides, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    killed = start(tmp_path, *overrides, "hydra.run.dir=killed")
    curves = tmp_path / "killed" / "logs" / "metrics.csv"
    deadline = time.monotonic() + 200
    while (
        time.monotonic() < deadline
        and killed.poll() is None
        and not (curves.exists() and len(curves.read_text().splitlines()) > 3)
    ):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert "seed=1 would change the run" in refused(tmp_path, "train", "resume=killed", "seed=1")
    extra = write_image(tmp_path / "data" / "train" / "swap" / "train9" / "0.png", 9)
    assert "The training and validation frames of this run are not those that" in refused(
        tmp_path, "train", "resume=killed"
    )
    extra.unlink()
    check_other_seed_is_refused(tmp_path / "killed")
    done = fmsd_here("train", "resume=killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Going on from" in done.stderr
    tables = (
        pl.read_csv(tmp_path / name / "logs" / "metrics.csv").drop_nulls("train/loss")
        for name in ("whole", "killed")
    )
    one, two = (dict(zip(table["step"], table["train/loss"], strict=True)) for table in tables)
    assert len(one) - len(two) in (
        0,
        1,
    )  # the row of the last step before the kill may not have been written
    assert two.items() <= one.items()
    assert (tmp_path / "whole" / "results.csv").read_bytes() == (
        tmp_path / "killed" / "results.csv"
    ).read_bytes()
    assert "is finished; test it again with" in refused(tmp_path, "train", "resume=killed")


def check_other_seed_is_refused(run: Path) -> None:
    """The checkpoints of a run do not continue one that has another seed."""
    config = run / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("seed: 0", "seed: 1"))
    assert "The settings of this run are not those that" in refused(
        run.parent, "train", f"resume={run}"
    )
    config.write_text(text)


def refused(folder: Path, *arguments: str) -> str:
    done = fmsd_here(*arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_what_cannot_be_resumed_or_would_not_do_what_it_says_is_refused(tmp_path: Path) -> None:
    assert "has no config.yaml" in refused(tmp_path, "train", "resume=nowhere")
    grow_tree(tmp_path / "data")
    assert "save_every=0 must be at least 1" in refused(
        tmp_path, "train", *TINY[:-1], "save_every=0"
    )
    assert "training ends before it would act" in refused(
        tmp_path, "train", *TINY, "method=probe", "wrapper=roga", "trainer.max_epochs=1"
    )
    assert "an epoch ends with its validation" in refused(
        tmp_path, "train", *TINY, "+trainer.val_check_interval=2"
    )
    assert not list(tmp_path.glob("runs/**/config.yaml"))
