"""The parts of the training task that the stories do not reach."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from fmsd.report.run import undone_if_refused
from fmsd.tasks.train import optimizer_steps, refuse
from fmsd.types import InputError


def trainer(**changes: object) -> Trainer:
    return Trainer(**({"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": 3} | changes))  # pyright: ignore


@pytest.mark.parametrize(
    ("changes", "accumulate", "steps"),
    [
        ({}, 1, 30),
        ({}, 4, 9),
        ({"limit_train_batches": 4}, 1, 12),
        ({"limit_train_batches": 0.5}, 2, 9),
        ({"max_steps": 7}, 1, 7),
        ({"max_steps": 700}, 1, 30),
        ({"max_steps": 7, "max_epochs": -1}, 1, 7),
    ],
)
def test_the_schedule_spans_the_steps_that_will_be_made(changes: dict[str, object], accumulate: int, steps: int) -> None:
    assert optimizer_steps(trainer(**changes), 10, accumulate) == steps


def test_half_precision_without_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(trainer(precision="bf16-mixed"))
    with pytest.raises(InputError, match=r"trainer\.precision=16-true .* use bf16-mixed"):
        refuse(trainer(precision="16-true"))
    with pytest.raises(InputError, match=r"Training in 2 processes is not supported yet; set trainer\.devices=1"):
        refuse(trainer(devices=2))


def test_a_refused_run_takes_back_its_own_parts_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "probe" / "now"
    run.mkdir(parents=True)
    with pytest.raises(InputError), undone_if_refused(run):
        (run / "config.yaml").write_text("a: 1")
        (run / "logs").mkdir()
        raise InputError("no.")
    assert list(tmp_path.iterdir()) == []
    mixed = tmp_path / "mine"
    (mixed / "logs").mkdir(parents=True)
    (mixed / "thesis.tex").write_text("years")
    with pytest.raises(InputError), undone_if_refused(mixed):
        (mixed / "config.yaml").write_text("a: 1")
        raise InputError("no.")
    assert {path.name for path in mixed.iterdir()} == {"logs", "thesis.tex"}


def test_a_run_with_a_checkpoint_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError), undone_if_refused(tmp_path):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"hours of work")
        raise InputError("a test image is broken.")
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
