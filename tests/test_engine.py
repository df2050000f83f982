"""Training steps, loaders and validation as Lightning runs them."""

import dataclasses
import functools
import random
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch import Trainer

from fmsd.data.manifest import Manifest
from fmsd.data.selection import Selection
from fmsd.data.sources import folder
from fmsd.engine.datamodule import DataModule
from fmsd.engine.detectors import seeded
from fmsd.engine.learner import Learner
from fmsd.engine.learner_settings import LearnerSettings
from fmsd.engine.measurement_batches import MeasurementBatches
from fmsd.engine.model_selection import MONITOR, ValidationMetrics
from fmsd.engine.predictions import gather_predictions, with_logits
from fmsd.engine.scorer import Scorer
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.optim.erm import ERM
from fmsd.optim.schedule import constant, cosine
from fmsd.peft.fmsd import fmsd
from fmsd.peft.full import full
from fmsd.peft.masm import SubspaceMaskRule, masm
from fmsd.peft.method import Method
from fmsd.peft.penalties import PENALTIES
from fmsd.peft.subspace import subspace_layers
from fmsd.types import Frames, Predictions
from tests.conftest import grow_tree, tiny_vit

SPLITS = {"train": "train", "val": "val", "test": "test"}


LOADER = ("size", "augment", "strong", "batches", "domains", "batch_size", "workers", "seed")
"""Arguments of the data module; all others are those of the selection."""


def selection(root: Path | None, **changes: Any) -> Selection:
    source = functools.partial(
        folder.scan, dataset="mine", layout="{split}/{domain}/{video}", splits=SPLITS, real=["real"]
    )  # pyright: ignore
    defaults: dict[str, Any] = {"source": source, "train": ["mine"], "test": ["mine"]}
    return Selection("mine", None if root is None else str(root), **(defaults | changes))


def module(root: Path | None, **changes: Any) -> DataModule:
    loader = {"size": 32, "batch_size": 4, "workers": 0, "augment": "none"}
    loader |= {name: changes.pop(name) for name in LOADER if name in changes}
    data = DataModule(selection(root, **changes), **loader)
    data.load("training", "tests")
    return data


def learner(**changes: Any) -> Learner:
    model = tiny_vit()
    method = changes.pop("method", full)
    adaptation = method(model)
    defaults: dict[str, Any] = {
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
        "schedule": constant,
        "steps": 10,
    }
    defaults |= {"weight_decay": 0.0, "clip": None}
    return build_learner(model, ERM(), adaptation=adaptation, **(defaults | changes))


def build_learner(*arguments: Any, **keywords: Any) -> Learner:
    """A learner whose settings may be given among its own keywords."""
    names = {field.name for field in dataclasses.fields(LearnerSettings)}
    settings = {name: keywords.pop(name) for name in names & keywords.keys()}
    return Learner(*arguments, settings=LearnerSettings(**settings), **keywords)


def trainer(folder_: Path, **changes: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return Trainer(default_root_dir=folder_, **({"max_epochs": 1} | quiet | changes))


def test_accumulation_equals_a_larger_batch(tree: Path, tmp_path: Path) -> None:
    states = []
    for batch_size, accumulate in ((8, 1), (4, 2), (2, 4)):
        torch.manual_seed(0)
        model = learner(accumulate=accumulate)
        trainer(tmp_path).fit(
            model, train_dataloaders=module(tree, batch_size=batch_size).train_dataloader()
        )
        states.append(model.detector.state_dict())
    for other in states[1:]:
        for key, value in states[0].items():
            torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-6)


def test_the_smaller_last_group_of_an_epoch_counts_in_full(tmp_path: Path) -> None:
    """Three batches, two per step: the last step follows the gradient of its one batch, not half of
    it.
    """
    root = grow_tree(tmp_path / "tree", videos=3)
    norms = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        torch.manual_seed(0)
        model = learner(accumulate=accumulate, clip=1e9)
        seen: list[float] = []
        model.log = lambda name, value, seen=seen, **_: (
            seen.append(float(value)) if name == "train/gradient_norm" else None
        )  # pyright: ignore
        trainer(tmp_path).fit(
            model, train_dataloaders=module(root, batch_size=batch_size).train_dataloader()
        )
        norms.append(seen)
    assert len(norms[0]) == 2
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_what_decays_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for decay, expected in (("matrices", {0.1, 0.0}), ("all", {0.1})):
        optimizer = learner(weight_decay=0.1, decay=decay).configure_optimizers()["optimizer"]
        assert {group["weight_decay"] for group in optimizer.param_groups} == expected
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would refuse it first
    with pytest.raises(
        InputError, match=r"learner\.decay=some is unknown; choose one of matrices, all"
    ):
        learner(decay="some")


def test_clipping_bounds_the_step(tree: Path, tmp_path: Path) -> None:
    model = learner(clip=1e-3)
    before = [parameter.detach().clone() for parameter in model.detector.parameters()]
    trainer(tmp_path, max_steps=1).fit(model, train_dataloaders=module(tree).train_dataloader())
    pairs = zip(model.detector.named_parameters(), before, strict=True)
    moved = {name: parameter.detach() - old for (name, parameter), old in pairs}
    for inside in (True, False):  # the head, and the backbone
        part = torch.cat(
            [value.flatten() for name, value in moved.items() if ("head" in name) == inside]
        )
        assert part.norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_the_schedule_advances_with_optimizer_steps(tree: Path, tmp_path: Path) -> None:
    model = learner(accumulate=2, schedule=cosine, steps=2)
    worker = trainer(tmp_path, max_epochs=2)
    worker.fit(model, train_dataloaders=module(tree, batch_size=4).train_dataloader())
    assert worker.global_step == 2
    assert model.lr_schedulers().last_epoch == 2  # pyright: ignore


def test_every_loss_term_is_logged_under_its_name_and_frozen_weights_stay_bit_equal(
    tree: Path, tmp_path: Path
) -> None:
    weights = {"orthogonality": 1.0, "spectral": 1.0}
    model = learner(
        method=functools.partial(
            fmsd, patterns=["*attn.qkv"], subspaces=2, directions=1, penalties=weights
        )
    )
    learned = {
        name for name, parameter in model.detector.named_parameters() if parameter.requires_grad
    }
    before = {key: value.clone() for key, value in model.detector.state_dict().items()}
    worker = trainer(tmp_path)
    worker.fit(model, train_dataloaders=module(tree).train_dataloader())
    for key, value in model.detector.state_dict().items():
        assert torch.equal(value, before[key]) == (key not in learned), key
    assert {
        "train/classification",
        "train/orthogonality",
        "train/spectral",
        "train/loss",
        "train/lr",
    } <= set(worker.logged_metrics)


@pytest.mark.parametrize(
    "method", [fmsd, functools.partial(masm, every=2, momentum=0.9, fraction=0.5)]
)
def test_under_bf16_the_constraint_and_the_penalties_are_computed_in_float32(
    method: Method, tree: Path, tmp_path: Path
) -> None:
    """Lightning's autocast covers the whole training step; in bf16 the penalty would be known to
    two digits.
    """
    settings = {
        "patterns": ["attention", "mlp"],
        "subspaces": 3,
        "directions": 2,
        "constraint": "hard",
        "penalties": {"spectral": 1.0},
    }
    model = learner(
        method=functools.partial(method, **settings),
        optimizer=functools.partial(torch.optim.AdamW, lr=0.01),
    )  # pyright: ignore
    trainer(tmp_path, max_epochs=6, precision="bf16-mixed").fit(
        model, train_dataloaders=module(tree).train_dataloader()
    )
    assert PENALTIES["orthogonality"](model.detector) < 1e-9
    moved = [
        (layer.left - layer.initial.u * layer.initial.s[:, None]).norm()
        for layer in subspace_layers(model.detector)
    ]
    assert min(moved) > 1e-3
    assert {parameter.dtype for parameter in model.detector.parameters()} == {torch.float32}


class GradientsOfPenalties:
    """A rule that drops the gradients of the loss and keeps those of the penalties."""

    def __init__(self, model: Detector, kept: list[torch.Tensor]) -> None:
        self.model, self.kept = model, kept

    def inactive(self) -> tuple[()]:
        return ()

    def observe(self) -> None:
        self.model.zero_grad()

    def before_step(self) -> None:
        for layer in subspace_layers(self.model):
            self.kept.extend(unit.u.grad.clone() for unit in layer.units)  # pyright: ignore


def test_a_penalty_has_the_same_gradient_in_bf16_training(tree: Path, tmp_path: Path) -> None:
    gradients = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        method = functools.partial(
            fmsd,
            patterns=["attention"],
            subspaces=2,
            directions=1,
            penalties={"orthogonality": 1.0, "spectral": 1.0},
        )
        model = learner(method=method)
        with torch.no_grad():
            for layer in subspace_layers(model.detector):
                layer.units[0].u.mul_(1.001)
        kept: list[torch.Tensor] = []

        model.step_rule = GradientsOfPenalties(model.detector, kept)
        trainer(tmp_path, max_steps=1, precision=precision).fit(
            model, train_dataloaders=module(tree).train_dataloader()
        )
        gradients.append(torch.cat([gradient.flatten() for gradient in kept]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-8)


def test_a_checkpoint_holds_what_learns_and_what_the_method_remembers(
    tree: Path, tmp_path: Path
) -> None:
    method = functools.partial(
        masm, patterns=["attention"], subspaces=2, directions=1, every=2, momentum=0.9, fraction=0.5
    )
    torch.manual_seed(0)
    model = learner(method=method)
    worker = trainer(tmp_path, max_epochs=4)
    worker.fit(model, train_dataloaders=module(tree).train_dataloader())
    worker.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert not [
        name for name in state if "mlp" in name or "patch_embed" in name or "semantic" in name
    ]
    torch.manual_seed(0)
    other = learner(method=method)
    other.load_state_dict(state)
    one, two = model.step_rule, other.step_rule
    assert isinstance(one, SubspaceMaskRule)
    assert isinstance(two, SubspaceMaskRule)
    assert (two.seen, two.active, two.history) == (one.seen, one.active, one.history)
    assert len(one.history.steps) > 1
    assert torch.equal(one.mean, two.mean)
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.detector(image), other.detector(image))
    with pytest.raises(InputError, match=r"tensors of the checkpoint do not fit the detector"):
        learner().load_state_dict(state)


def test_generators_of_random_numbers_are_seeded_for_a_block_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    with seeded(1):
        first = draw()
        begun = draw()
        with seeded(1):
            assert draw() == first
        following = draw()
    with seeded(1):
        assert [draw() for _ in range(3)] == [first, begun, following]


def test_batches_before_training_are_full_and_differ_and_hold_a_domain_in_balance(
    tmp_path: Path,
) -> None:
    """They differ from each other and from those of training."""
    root = grow_tree(tmp_path / "tree", domains=("real", "swap", "blend"), videos=4)
    data = module(root, train=["mine"], batch_size=4, workers=1)
    batches = MeasurementBatches(data, torch.device("cpu"))
    assert batches.domains == ["blend", "swap"]
    first, again = list(batches.draw(9)), list(batches.draw(9))
    assert len(first) == 9
    assert all(len(batch.label) == 4 for batch in first)
    assert not torch.equal(first[0].row, again[0].row)
    assert not torch.equal(first[0].row, next(iter(data.train_dataloader())).row)
    repeated = MeasurementBatches(data, torch.device("cpu"))
    assert all(
        torch.equal(one.image, two.image) for one, two in zip(first, repeated.draw(9), strict=True)
    )
    own = torch.cat([batch.domain[batch.label == 1] for batch in batches.draw(8, "swap")]).unique()
    assert len(own) == 1
    labels = torch.cat([batch.label for batch in batches.draw(8, "swap")])
    assert labels.float().mean() == 0.5
    assert len(list(MeasurementBatches(data, torch.device("cpu"), limit=3).draw(9))) == 3


def test_validation_metrics_are_those_of_the_whole_split(tree: Path, tmp_path: Path) -> None:
    data, model = module(tree), learner()
    worker = trainer(tmp_path, callbacks=[ValidationMetrics(data)])
    worker.validate(model, dataloaders=data.val_dataloader(), verbose=False)
    batches = trainer(tmp_path).predict(Scorer(model.detector), dataloaders=data.val_dataloader())
    table = with_logits(data.splits.validation, gather_predictions(batches), "32-true")  # pyright: ignore
    means = table.group_by("video", maintain_order=True).agg(
        pl.col("label").first(),
        (1 / (1 + (-pl.col("logit").cast(pl.Float64)).exp())).mean().alias("score"),
    )
    real, fake = (means.filter(label=label)["score"].to_list() for label in (0, 1))
    wins = [1.0 if two > one else 0.5 if two == one else 0.0 for one in real for two in fake]
    assert float(worker.callback_metrics[MONITOR]) == pytest.approx(sum(wins) / len(wins))


def test_scores_that_are_no_numbers_stop_the_run(tree: Path, tmp_path: Path) -> None:
    model = learner()
    with torch.no_grad():
        model.detector.head().bias.fill_(torch.nan)  # pyright: ignore
    with pytest.raises(InputError, match=r"not finite: training diverged; lower optimizer\.lr"):
        trainer(tmp_path).predict(Scorer(model.detector), dataloaders=module(tree).val_dataloader())


def test_gather_orders_rows_and_drops_repeats() -> None:
    parts = [
        Predictions(torch.tensor([3, 1]), torch.tensor([0.3, 0.1]), torch.tensor([-3, -1])),
        Predictions(
            torch.tensor([2, 1, 0]), torch.tensor([0.2, 0.1, 0.0]), torch.tensor([-2, -1, 0])
        ),
    ]
    row, logit, content = gather_predictions(parts)
    assert row.tolist() == [0, 1, 2, 3]
    assert content.tolist() == [0, -1, -2, -3]
    torch.testing.assert_close(logit, torch.tensor([0.0, 0.1, 0.2, 0.3]))


def test_no_test_frame_is_read_before_the_weights_are_chosen(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and selection open the images of the train and val splits and no others."""
    opened: set[str] = set()
    original = Manifest.files

    def watched(manifest: Manifest) -> list[str]:
        opened.update(manifest.table["split"].unique())
        return original(manifest)

    data = module(tree)
    monkeypatch.setattr(Manifest, "files", watched)
    worker = trainer(tmp_path, max_epochs=2, callbacks=[ValidationMetrics(data)])
    worker.fit(learner(), datamodule=data)
    assert opened == {"train", "val"}


def test_batches_travel_as_frames(tree: Path) -> None:
    assert isinstance(next(iter(module(tree).test_loader("mine"))), Frames)
