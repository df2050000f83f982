"""Training steps, loaders and validation as Lightning runs them."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import polars as pl
import pytest
import torch
from lightning.pytorch import Trainer

from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame
from fmsd.data.manifest import Manifest
from fmsd.data.sources import folder
from fmsd.engine.callbacks import MONITOR, ValidationMetrics
from fmsd.engine.datamodule import DataModule, TrainingBatches
from fmsd.engine.learner import Learner, Scorer
from fmsd.engine.predictions import gather, joined
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
from tests.conftest import grow_tree, tiny_vit, write_image

SPLITS = {"train": "train", "val": "val", "test": "test"}


def module(root: Path | None, **changes: Any) -> DataModule:
    source = functools.partial(
        folder.scan, dataset="mine", layout="{split}/{domain}/{video}", splits=SPLITS, real=["real"]
    )  # pyright: ignore
    defaults: dict[str, Any] = {
        "train": ["mine"],
        "test": ["mine"],
        "size": 32,
        "batch_size": 4,
        "workers": 0,
        "augment": "none",
    }
    return DataModule(
        "mine", None if root is None else str(root), **({"source": source} | defaults | changes)
    )


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
    return Learner(model, ERM(), adaptation=adaptation, **(defaults | changes))


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
    decays = {decay: {group["weight_decay"] for group in learner(weight_decay=0.1, decay=decay).configure_optimizers()["optimizer"].param_groups}
              for decay in ("matrices", "all")}  # fmt: skip
    assert decays == {"matrices": {0.1, 0.0}, "all": {0.1}}
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would refuse it first
    with pytest.raises(InputError, match=r"learner\.decay=some is unknown; choose matrices or all"):
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

        model.rule = GradientsOfPenalties(model.detector, kept)
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
    one, two = model.rule, other.rule
    assert isinstance(one, SubspaceMaskRule)
    assert isinstance(two, SubspaceMaskRule)
    assert (two.seen, two.active, two.history) == (one.seen, one.active, one.history)
    assert len(one.history.steps) > 1
    assert torch.equal(one.mean, two.mean)
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.detector(image), other.detector(image))
    with pytest.raises(InputError, match=r"tensors of the checkpoint do not fit the detector"):
        learner().load_state_dict(state)


def test_batches_before_training_are_full_differ_from_each_other_and_from_training_and_hold_a_domain_in_balance(
    tmp_path: Path,
) -> None:
    root = grow_tree(tmp_path / "tree", domains=("real", "swap", "blend"), videos=4)
    data = module(root, train=["mine"], batch_size=4, workers=1)
    batches = TrainingBatches(data, torch.device("cpu"))
    assert batches.domains == ["blend", "swap"]
    first, again = list(batches.draw(9)), list(batches.draw(9))
    assert len(first) == 9
    assert all(len(batch.label) == 4 for batch in first)
    assert not torch.equal(first[0].row, again[0].row)
    assert not torch.equal(first[0].row, next(iter(data.train_dataloader())).row)
    repeated = TrainingBatches(data, torch.device("cpu"))
    assert all(
        torch.equal(one.image, two.image) for one, two in zip(first, repeated.draw(9), strict=True)
    )
    own = torch.cat([batch.domain[batch.label == 1] for batch in batches.draw(8, "swap")]).unique()
    assert len(own) == 1
    labels = torch.cat([batch.label for batch in batches.draw(8, "swap")])
    assert labels.float().mean() == 0.5
    assert len(list(TrainingBatches(data, torch.device("cpu"), limit=3).draw(9))) == 3


def test_validation_metrics_are_those_of_the_whole_split(tree: Path, tmp_path: Path) -> None:
    data, model = module(tree), learner()
    worker = trainer(tmp_path, callbacks=[ValidationMetrics(data)])
    worker.validate(model, dataloaders=data.val_dataloader(), verbose=False)
    batches = trainer(tmp_path).predict(Scorer(model.detector), dataloaders=data.val_dataloader())
    table = joined(data.validation, gather(batches))  # pyright: ignore
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
        Predictions(torch.tensor([3, 1]), torch.tensor([0.3, 0.1])),
        Predictions(torch.tensor([2, 1, 0]), torch.tensor([0.2, 0.1, 0.0])),
    ]
    row, logit = gather(parts)
    assert row.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(logit, torch.tensor([0.0, 0.1, 0.2, 0.3]))


# ---- the data module


def test_splits_do_not_mix(tree: Path) -> None:
    data = module(tree)
    parts = [data.training.where(split="train"), data.validation, data.tests["mine"]]
    videos = [set(part.table["video"]) for part in parts]
    assert [len(part) for part in videos] == [4, 4, 4]
    assert len(set.union(*videos)) == 12


def test_without_a_validation_split_training_videos_are_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = grow_tree(tmp_path, splits=("train", "test"), videos=4)
    with caplog.at_level(logging.INFO, "fmsd"):
        data = module(root, val_fraction=0.25)
        assert data.validation.videos == 2
    assert "25 % of its training videos are held out" in caplog.text
    assert not set(data.validation.table["video"]) & set(
        data.training.where(split="train").table["video"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": None}, r"data=mine has no root; give the dataset's folder as data\.root=PATH"),
        ({"train": ["yours"]}, r"data\.train names yours, but data=mine holds mine"),
        ({"test": ["yours"]}, r"data\.test names yours, which data=mine does not hold"),
        ({"splits": ("train", "val")}, r"dataset mine has no test split"),
        ({"domains": ("real",)}, r"train split of mine has only real frames"),
        ({"frames": 0}, r"data\.frames=0 must be at least 1"),
        ({"batch_size": 0}, r"data\.batch_size=0 must be at least 1"),
        (
            {"val_fraction": 1.5},
            r"data\.val_fraction=1\.5 is no share; give a number between 0 and 1",
        ),
        (
            {"batches": "mixed"},
            r"data\.batches=mixed is unknown; choose one of shuffle, balanced, natural",
        ),
    ],
)
def test_data_that_cannot_be_used_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = grow_tree(
        tmp_path, **{name: changes.pop(name) for name in ("splits", "domains") if name in changes}
    )
    with pytest.raises(InputError, match=message):
        data = module(changes.pop("root", root), **changes)
        assert data.training and data.tests  # noqa: PT018


def test_a_test_split_with_one_class_is_refused(tmp_path: Path) -> None:
    root = grow_tree(tmp_path, splits=("train", "val"))
    write_image(root / "test" / "swap" / "v" / "0.png", 0)
    with pytest.raises(
        InputError, match=r"test split of mine has only fake frames, so no AUC exists"
    ):
        assert module(root).tests


def test_test_datasets_elsewhere_are_read_or_skipped_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def other(root: Path) -> Iterator[Frame]:
        return folder.scan(root, "other", "{split}/{domain}/{video}", SPLITS, ["real"])  # pyright: ignore

    home, away = grow_tree(tmp_path / "home"), grow_tree(tmp_path / "away")
    data = module(
        home,
        test=["mine", "other", "third"],
        others={"other": other, "third": other},
        roots={"other": str(away), "third": None},
    )
    with caplog.at_level(logging.WARNING, "fmsd"):
        assert list(data.tests) == ["mine", "other"]
    assert "third is skipped: its root is not given (data.roots.third=PATH)" in caplog.text
    assert data.skipped == ["third"]
    alias = module(home, test=["alias"], others={"alias": other}, roots={"alias": str(away)})
    with pytest.raises(
        InputError,
        match=r"away holds other, not alias; correct data\.roots\.alias=PATH, or the name in conf/data/alias\.yaml",
    ):
        assert alias.tests


def in_compressions(root: Path, dataset: str, *levels: str) -> Iterator[Frame]:
    """The frames below ROOT/LEVEL of a dataset, in each of some compressions."""
    for level in levels:
        for frame in folder.scan(
            root / level, dataset, "{split}/{domain}/{video}", SPLITS, ["real"]
        ):  # pyright: ignore
            yield replace(frame, compression=level, video=f"{frame.video}/{level}")


def test_of_several_compressions_one_has_to_be_named(tmp_path: Path) -> None:
    for level in ("c23", "c40"):
        grow_tree(tmp_path / "home" / level)

    def data(**changes: Any) -> DataModule:
        return module(
            tmp_path / "home",
            source=lambda root: in_compressions(root, "mine", "c23", "c40"),
            **changes,
        )

    assert set(data().own.table["compression"]) == {
        "c23",
        "c40",
    }  # a source that yields both was asked for both
    crops = tmp_path / "crops"
    from_entries(in_compressions(tmp_path / "home", "mine", "c23", "c40"), tmp_path / "home").write(
        crops / "manifest.parquet"
    )
    (crops / "extract.json").write_text('{"frames": null, "sampling": "spread"}')
    with pytest.raises(
        InputError,
        match=r"crops holds mine in the compressions c23, c40; choose one with data\.compression=NAME, or all",
    ):
        assert module(crops).own
    assert set(module(crops, compression="all").own.table["compression"]) == {"c23", "c40"}
    with pytest.raises(
        InputError, match=r"data\.compression=raw is asked for, but .*home holds mine in c23, c40"
    ):
        assert data(compression="raw").own
    chosen = data(compression="c40")
    for manifest in (chosen.training, chosen.tests["mine"]):
        assert set(manifest.table["compression"]) == {"c40"}
    assert chosen.tests["mine"].digest() != data(compression="c23").tests["mine"].digest()
    elsewhere = {
        "others": {"other": lambda root: in_compressions(root, "other", "c23", "c40")},
        "roots": {"other": str(tmp_path / "home")},
    }
    home = grow_tree(tmp_path / "plain")
    read = module(home, test=["mine", "other"], compression="c23", **elsewhere).tests
    assert {name: set(test.table["compression"]) for name, test in read.items()} == {
        "mine": {""},
        "other": {"c23"},
    }


def test_a_file_that_is_trained_and_tested_on_is_refused(tree: Path) -> None:
    def same(root: Path) -> Iterator[Frame]:
        for frame in folder.scan(root, "other", "{split}/{domain}/{video}", SPLITS, ["real"]):  # pyright: ignore
            yield replace(frame, split="test")

    with pytest.raises(InputError, match=r"is a training and a test frame of other"):
        assert module(
            tree, test=["other"], others={"other": same}, roots={"other": str(tree)}
        ).tests


def test_a_manifest_takes_the_place_of_a_scan(tree: Path, tmp_path: Path) -> None:
    scanned = module(tree)
    scanned.own.write(tmp_path / "manifest.parquet")

    def never(root: Path) -> Iterator[Frame]:
        raise AssertionError(f"{root} was scanned")

    read = DataModule(
        "mine",
        str(tree),
        never,
        ["mine"],
        ["mine"],
        32,
        manifest=str(tmp_path / "manifest.parquet"),
    )
    assert read.tests["mine"].digest() == scanned.tests["mine"].digest()


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
    assert data.training and data.tests  # noqa: PT018
    monkeypatch.setattr(Manifest, "files", watched)
    worker = trainer(tmp_path, max_epochs=2, callbacks=[ValidationMetrics(data)])
    worker.fit(learner(), datamodule=data)
    assert opened == {"train", "val"}


def test_batches_travel_as_frames(tree: Path) -> None:
    assert isinstance(next(iter(module(tree).test_loader("mine"))), Frames)
