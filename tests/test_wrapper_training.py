"""Optimizer wrappers in a training: accumulation, clipping, warm-up, masks and warnings."""

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.data import DataLoader

from fmsd.cli.main import main
from fmsd.engine.learner import Learner
from fmsd.errors import InputError
from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.optim.schedule import constant
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.peft.full import full
from fmsd.peft.masm import SubspaceMaskRule
from fmsd.peft.method import Method
from fmsd.peft.probe import probe
from fmsd.types import Frames
from tests.conftest import METHODS, UNFOLDABLE, grow_tree, tiny_vit
from tests.test_engine import build_learner, module, trainer
from tests.test_resume import TINY
from tests.wrappers import ADAPTIVE, NAMES, WHOLE, WRAPPERS, bits, direction, flat

IDS = ["blend", "swap"]

ACTIVE = [SAM(0.3), SAGM(0.3, 0.1), RoGA(0.3, 0.1, 2.0, "own", 0), RoGA(0.3, 0.1, 2.0, "all", 0)]
"""From the first epoch on."""


@pytest.fixture(scope="module")
def forgeries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two forgeries beside real frames: 24 training frames."""
    return grow_tree(
        tmp_path_factory.mktemp("forgeries"), domains=("real", "swap", "blend"), videos=4
    )


def by_hand(*sizes: tuple[int, int]) -> list[Frames]:
    """Batches with so many frames of each of two domains."""
    batches, generator = [], torch.Generator().manual_seed(0)
    for one, two in sizes:
        count = one + two
        image = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        batches.append(
            Frames(
                image,
                torch.arange(count) % 2,
                torch.tensor([0] * one + [1] * two),
                torch.arange(count),
                torch.arange(count),
            )
        )
    return batches


def joined(batches: Sequence[Frames]) -> Frames:
    return Frames(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def train(
    wrapper: OptimizerWrapper,
    batches: Any,
    folder: Path,
    method: Method = full,
    worker: dict[str, Any] | None = None,
    **changes: Any,
) -> Learner:
    torch.manual_seed(0)
    model = tiny_vit()
    adaptation = method(model, None)  # pyright: ignore
    defaults: dict[str, Any] = {
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
        "schedule": constant,
        "steps": 10,
        "domains": IDS,
    }
    defaults |= {"weight_decay": 0.0, "clip": None}
    learner = build_learner(model, wrapper, adaptation=adaptation, **(defaults | changes))
    loader = DataLoader(batches, batch_size=None) if isinstance(batches, list) else batches
    trainer(folder, **(worker or {})).fit(learner, train_dataloaders=loader)
    return learner


def weights(learner: Learner) -> list[Tensor]:
    return [parameter.detach() for parameter in learner.detector.parameters()]


@pytest.mark.parametrize("method", METHODS | UNFOLDABLE)
@pytest.mark.parametrize(
    "wrapper", [*WRAPPERS[:5], WHOLE[2], ADAPTIVE[2]], ids=[*NAMES[:5], "own-whole", "own-adaptive"]
)
def test_every_wrapper_trains_every_method(
    wrapper: OptimizerWrapper, method: str, forgeries: Path, tmp_path: Path
) -> None:
    data = module(forgeries, batches="balanced", batch_size=8)
    assert data.training_domains == IDS
    torch.manual_seed(0)
    start = tiny_vit()
    (METHODS | UNFOLDABLE)[method](start, None)  # pyright: ignore
    learner = train(
        wrapper,
        data.train_dataloader(),
        tmp_path,
        (METHODS | UNFOLDABLE)[method],
        worker={"max_epochs": 2},
    )
    assert learner.trainer.global_step == 6
    for (name, value), before in zip(
        learner.detector.named_parameters(), start.parameters(), strict=True
    ):
        assert value.isfinite().all(), name
        if not value.requires_grad:
            assert torch.equal(value, before), name
    assert not all(map(torch.equal, learner.detector.parameters(), start.parameters()))
    logged = {
        name
        for name in learner.trainer.logged_metrics
        if name.startswith(("train/c", "train/d", "train/g", "train/h", "train/pert"))
    }
    expected = {
        "train/classification",
        "train/head_gradient_share",
        "train/gradient_norm",
        "train/gradient_norm/head",
        "train/gradient_norm/backbone",
    }
    expected |= (
        {"train/cosine_aligned", "train/perturbed_loss"} if not isinstance(wrapper, ERM) else set()
    )
    if not isinstance(wrapper, ERM | SAM):
        expected |= {"train/descent_per_ascent"}
    if wrapper.by_domain:
        expected |= {
            "train/cosine_domains",
            "train/classification/swap",
            "train/classification/blend",
        }
    assert logged == expected


@pytest.mark.parametrize(
    "wrapper",
    [
        *ACTIVE,
        *(replace(wrapper, perturb="all") for wrapper in ACTIVE),
        replace(ACTIVE[2], adaptive=True),
    ],
    ids=[*NAMES[1:9], "own-adaptive"],
)
def test_a_step_of_training_is_that_of_the_formula(
    wrapper: OptimizerWrapper, tmp_path: Path
) -> None:
    [batch] = by_hand((3, 5))
    torch.manual_seed(0)
    model = tiny_vit().double()
    names, params = zip(*model.named_parameters(), strict=True)

    def gradient(theta: Tensor, place: int) -> Tensor:
        theta = theta.detach().requires_grad_()
        parts = theta.split([parameter.numel() for parameter in params])
        named = {
            name: part.view_as(value)
            for name, value, part in zip(names, params, parts, strict=True)
        }
        own = batch.domain == place if wrapper.by_domain else batch.domain >= 0
        logits = functional_call(model, named, (batch.image[own],))
        loss = (
            functional.binary_cross_entropy_with_logits(
                logits, batch.label[own].double(), reduction="sum"
            )
            / 8
        )
        return torch.autograd.grad(loss, theta)[0]

    theta = flat(params).detach()
    still = set(model.head().parameters()) if wrapper.perturb == "backbone" else set()
    moves = flat(
        [torch.full_like(parameter, float(parameter not in still)) for parameter in params]
    )
    expected = direction(wrapper, theta, gradient, 2 if wrapper.by_domain else 1, moves)
    found = (theta - flat(weights(train(wrapper, [batch], tmp_path))).double()) / 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert (
        found - gradient(theta, 0) - (gradient(theta, 1) if wrapper.by_domain else 0)
    ).norm() > 0.01 * expected.norm()


@pytest.mark.parametrize("wrapper", [ERM(), *ACTIVE], ids=NAMES[:5])
def test_accumulated_batches_equal_their_joint_batch(
    wrapper: OptimizerWrapper, tmp_path: Path
) -> None:
    """Also where a batch lacks a domain, and where batches differ in size."""
    batches = by_hand((3, 1), (0, 4), (2, 2), (3, 4))
    apart = train(wrapper, batches, tmp_path, accumulate=2)
    joint = train(wrapper, [joined(batches[:2]), joined(batches[2:])], tmp_path)
    assert apart.trainer.global_step == joint.trainer.global_step == 2
    for one, two in zip(weights(apart), weights(joint), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrapper", [SAM(0.3), SAGM(0.3, 0.1)], ids=["sam", "sagm"])
def test_accumulation_of_shuffled_batches_equals_a_larger_batch(
    wrapper: OptimizerWrapper, forgeries: Path, tmp_path: Path
) -> None:
    apart, joint = (
        train(
            wrapper,
            module(forgeries, batch_size=size).train_dataloader(),
            tmp_path,
            accumulate=count,
            domains=[],
        )
        for size, count in ((4, 2), (8, 1))
    )
    for one, two in zip(weights(apart), weights(joint), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def moved(learner: Learner) -> dict[str, Tensor]:
    """How far training moved the head and the backbone of a tiny ViT, which began as `train`
    begins.
    """
    torch.manual_seed(0)
    pairs = list(zip(learner.detector.named_parameters(), tiny_vit().parameters(), strict=True))
    parts = {
        part: [
            now - before for (name, now), before in pairs if ("head" in name) == (part == "head")
        ]
        for part in ("head", "backbone")
    }
    return {part: flat(differences).norm() for part, differences in parts.items()}


@pytest.mark.parametrize("wrapper", [ERM(), *ACTIVE], ids=NAMES[:5])
def test_clipping_bounds_what_the_optimizer_follows_of_head_and_backbone_each(
    wrapper: OptimizerWrapper, tmp_path: Path
) -> None:
    free, clipped = (train(wrapper, by_hand((3, 5)), tmp_path, clip=clip) for clip in (None, 1e-3))
    norms = {
        part: free.trainer.logged_metrics[f"train/gradient_norm/{part}"]
        for part in ("head", "backbone")
    }
    for part, distance in moved(free).items():
        assert distance.item() == pytest.approx(0.1 * norms[part].item(), rel=1e-3)
        assert clipped.trainer.logged_metrics[f"train/gradient_norm/{part}"] == norms[part]
    for distance in moved(clipped).values():
        assert distance.item() == pytest.approx(0.1 * 1e-3, rel=1e-3)
    whole = free.trainer.logged_metrics["train/gradient_norm"]
    assert whole.item() == pytest.approx(
        math.hypot(*(length.item() for length in norms.values())), rel=1e-5
    )


def test_a_part_whose_gradient_is_within_the_limit_is_not_clipped_for_the_others_sake(
    tmp_path: Path,
) -> None:
    """A common norm would make the backbone of an adapter wait for the head, which holds most of
    the gradient.
    """
    free = train(ERM(), by_hand((3, 5)), tmp_path, METHODS["lora"])
    norms = [
        free.trainer.logged_metrics[f"train/gradient_norm/{part}"].item()
        for part in ("backbone", "head")
    ]
    assert norms[0] < norms[1]
    clipped = train(ERM(), by_hand((3, 5)), tmp_path, METHODS["lora"], clip=sum(norms) / 2)
    same = {
        name: torch.equal(one, two)
        for (name, one), two in zip(free.detector.named_parameters(), weights(clipped), strict=True)
    }
    assert not same["backbone.head.weight"]
    assert all(equal for name, equal in same.items() if "head" not in name)


@pytest.mark.parametrize("wrapper", ACTIVE, ids=NAMES[1:5])
def test_a_wrapper_that_leaves_the_head_in_place_is_refused_where_only_the_head_is_trainable(
    wrapper: Any, tmp_path: Path
) -> None:
    batches = by_hand((3, 5))
    with pytest.raises(
        InputError,
        match=(
            r"wrapper\.perturb=backbone leaves nothing to perturb, for only the head is "
            r"trainable; take wrapper=erm"
        ),
    ):
        train(wrapper, batches, tmp_path, probe)
    assert train(replace(wrapper, perturb="all"), batches, tmp_path, probe).trainer.global_step == 1
    assert train(ERM(), batches, tmp_path, probe).trainer.global_step == 1


def test_on_the_command_line_it_is_refused_in_one_sentence_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grow_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        *TINY,
        "data.workers=0",
        "method=probe",
        "hydra.run.dir=run",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
    ]
    assert main([*words, "wrapper=sam"]) == 2
    said = capsys.readouterr().err
    assert (
        said.count(
            "wrapper.perturb=backbone leaves nothing to perturb, for only the head is trainable; "
            "take wrapper=erm"
        )
        == 1
    )
    assert not (tmp_path / "run").exists()
    assert (
        main(
            [
                *words,
                "wrapper=sam",
                "wrapper.perturb=all",
                "wrapper.adaptive=true",
                "wrapper.eta=0.01",
            ]
        )
        == 0
    )
    assert (tmp_path / "run" / "results.csv").is_file()


@pytest.mark.parametrize(
    "wrapper",
    [SAM(0.3, 1), SAGM(0.3, 0.1, 1), RoGA(0.3, 0.1), RoGA(0.3, 0.1, evaluate="all")],
    ids=NAMES[1:5],
)
def test_the_first_epoch_is_plain_erm(wrapper: OptimizerWrapper, tmp_path: Path) -> None:
    batches = by_hand((3, 5), (4, 4))
    for epochs in (1, 2):
        one, two = (
            train(rule, batches, tmp_path, METHODS["lora"], worker={"max_epochs": epochs})
            for rule in (wrapper, ERM())
        )
        assert all(map(torch.equal, weights(one), weights(two))) == (epochs == 1)


@pytest.mark.parametrize(
    "wrapper",
    [SAM(0.0), SAGM(0.0, 0.0), RoGA(0.0, 0.0, 2.0, "own", 0), RoGA(0.0, 0.0, 2.0, "all", 0)],
    ids=NAMES[1:5],
)
def test_without_perturbation_training_with_dropout_is_erm(
    wrapper: OptimizerWrapper, tmp_path: Path
) -> None:
    """Only where all passes of a step over the same frames see the same dropout."""
    batches = by_hand((4, 0), (4, 0)) if wrapper.by_domain else by_hand((3, 5), (4, 4))
    one, two = (
        train(rule, batches, tmp_path, METHODS["lora"], domains=IDS[:1])
        for rule in (wrapper, ERM())
    )
    for found, expected in zip(weights(one), weights(two), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class Watch(Callback):
    """What rests when a step begins is not moved by its passes, nor is the head if it stays in
    place; what rests when it ends is not moved at all.
    """

    def __init__(self, wrapper: OptimizerWrapper) -> None:
        self.wrapper = wrapper
        self.rested = self.perturbed = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.detector.register_forward_pre_hook(lambda module, inputs: self.look(module))

    def look(self, detector: nn.Module) -> None:
        assert bits(self.still) == self.frozen
        if self.wrapper.perturb == "backbone":
            assert bits(list(detector.head().parameters())) == self.head  # pyright: ignore
        self.perturbed += bits(list(detector.parameters())) != self.before

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.still = list(pl_module.step_rule.inactive())
        self.frozen = bits(self.still)
        self.head = bits(list(pl_module.detector.head().parameters()))
        self.before = bits(list(pl_module.detector.parameters()))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        still = pl_module.step_rule.inactive()
        self.rested += len(still)
        for parameter, before in zip(pl_module.detector.parameters(), self.before, strict=True):
            if parameter in still:
                assert bits([parameter]) == [before]
        assert bits(list(pl_module.detector.parameters())) != self.before


@pytest.mark.parametrize(
    "wrapper", [*ACTIVE, *(replace(wrapper, perturb="all") for wrapper in ACTIVE)], ids=NAMES[1:9]
)
def test_what_rests_under_masm_does_not_move(wrapper: OptimizerWrapper, tmp_path: Path) -> None:
    watch = Watch(wrapper)
    adamw = functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
    learner = train(
        wrapper,
        by_hand(*[(3, 5)] * 7),
        tmp_path,
        METHODS["masm"],
        worker={"callbacks": [watch]},
        optimizer=adamw,
    )
    assert isinstance(learner.step_rule, SubspaceMaskRule)
    assert len(learner.step_rule.history.steps) == 3
    assert watch.rested > 0
    assert watch.perturbed > 0


def test_a_wrapper_by_domain_without_domains_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"batches hold none; set data\.batches=balanced"):
        train(RoGA(), by_hand((1, 1)), tmp_path, domains=[])


@pytest.mark.parametrize("method", ["fmsd", "full"])
@pytest.mark.parametrize(
    "wrapper",
    [SAM(3.0), SAGM(3.0, 0.1), RoGA(3.0, 0.1, 1.0, "own", 0), RoGA(3.0, 0.1, 1.0, "all", 0)],
    ids=NAMES[1:5],
)
def test_under_bf16_the_second_stage_sees_perturbed_parameters(
    wrapper: OptimizerWrapper, method: str, tmp_path: Path
) -> None:
    learner = train(
        wrapper,
        by_hand((3, 5), (4, 4)),
        tmp_path,
        METHODS[method],
        worker={"precision": "bf16-mixed"},
    )
    assert learner.trainer.logged_metrics["train/cosine_aligned"] < 0.9999
    assert all(
        value.isfinite().all() and value.dtype == torch.float32 for value in weights(learner)
    )


def test_too_large_an_alpha_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batches = by_hand(*[(1, 1)] * 12)
    for alpha, times in ((1e-4, 0), (10.0, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fmsd"):
            train(
                SAGM(0.05, alpha),
                batches,
                tmp_path,
                METHODS["fmsd"],
                optimizer=functools.partial(torch.optim.SGD, lr=1e-4),
            )
        assert caplog.text.count("train/descent_per_ascent is") == times


def test_points_that_lie_too_far_off_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batches = by_hand(*[(1, 1)] * 12)
    for rho, times in ((1e-3, 0), (30.0, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fmsd"):
            learner = train(
                SAM(rho, perturb="all"),
                batches,
                tmp_path,
                optimizer=functools.partial(torch.optim.SGD, lr=1e-4),
            )
        logged = learner.trainer.logged_metrics
        assert (logged["train/perturbed_loss"] > 1.5 * logged["train/loss"]) == bool(times)
        assert caplog.text.count("The loss at the perturbed parameters is") == times
