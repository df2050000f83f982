"""The training step. The learner owns no method: it brings detector, wrapper, optimizer, schedule and penalties together."""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fmsd.engine.datamodule import moved
from fmsd.engine.distributed import several, spread, summed
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.models.prefix import Prefix, frozen
from fmsd.optim.erm import ERM
from fmsd.optim.flat import existing_gradients
from fmsd.optim.groups import Decay, decay_groups
from fmsd.optim.replay import Repeatable
from fmsd.optim.wrapper import DESCENT, PERTURBED_LOSS, OptimizerWrapper, Outcome, Pass, check_head
from fmsd.peft import adapter
from fmsd.peft.method import Adaptation
from fmsd.types import Frames, Predictions

log = logging.getLogger(__name__)

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Makes a torch optimizer from parameter groups, e.g. `partial(AdamW, lr=1e-3)`."""

ScheduleFactory = Callable[[Optimizer, int], LRScheduler]
"""Makes a schedule from an optimizer and the number of its steps."""

LOOK = 10
"""Steps between two looks at a value that lies on the device."""

FAR = 1.5
"""The loss at the perturbed parameters, as a multiple of the loss, from which on they lie too far off."""

METHOD = "method/"
"""Prefix, in a checkpoint, of what a method remembers."""


class Learner(LightningModule):
    """Trains a detector by manual optimisation, so that a wrapper may run several passes per step.

    Lightning refuses `gradient_clip_val` and `accumulate_grad_batches` under manual optimisation:
    they are arguments here.

    Its state, and so a checkpoint, holds what learns; the frozen rest of the backbone is the base
    that the detector is made from.

    Args:
        steps: optimizer steps of the whole training, for the schedule.
        weight_decay: of what `decay` says.
        decay: `matrices`, where biases, norms and subspace factors get none, or `all` that learns.
        accumulate: batches per optimizer step, which is that of one batch of all their frames.
        clip: largest norm of the gradient that the optimizer follows, of the head's and of the
            backbone's each; None for no limit.
        domains: names of the domains in the order of their ids, for a wrapper with a pass per
            domain; its batches must hold each of them.
        seed: of dropout.
        reuse: compute what lies below everything that learns once per step, not once per pass of a
            wrapper.

    Raises:
        InputError: settings out of range, a wrapper by domain without domains, or one that perturbs
            the backbone where only the head is trainable.
    """

    def __init__(
        self,
        detector: Detector,
        wrapper: OptimizerWrapper,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        adaptation: Adaptation,
        steps: int,
        weight_decay: float = 0.01,
        accumulate: int = 1,
        clip: float | None = 1.0,
        domains: Sequence[str] = (),
        seed: int = 0,
        reuse: bool = True,
        decay: Decay = "matrices",
    ) -> None:
        super().__init__()
        if accumulate < 1 or (clip is not None and clip <= 0):
            raise InputError(
                f"learner.accumulate={accumulate} or learner.clip={clip} is out of range",
                "give at least 1 batch, and a norm above 0 or null for no limit",
            )
        if weight_decay < 0:
            raise InputError(
                f"learner.weight_decay={weight_decay} is out of range",
                "give a number of at least 0",
            )
        if decay not in ("matrices", "all"):
            raise InputError(f"learner.decay={decay} is unknown", "choose matrices or all")
        if wrapper.by_domain and not domains:
            raise InputError(
                "The wrapper aligns forgery domains, and the batches hold none",
                "set data.batches=balanced (or natural)",
            )
        check_head(wrapper.perturb, trainable(detector), trainable(detector.head()))
        self.automatic_optimization = False
        self.detector = detector
        self.wrapper = wrapper
        self.optimizer_factory = optimizer
        self.schedule_factory = schedule
        self.adaptation = adaptation
        self.rule = adaptation.rule
        self.steps = steps
        self.weight_decay = weight_decay
        self.decay: Decay = decay
        self.accumulate = accumulate
        self.clip = clip
        self.domains = list(domains)
        self.seed = seed
        self.reuse = reuse
        self.waiting: list[Frames] = []
        self.warned: set[str] = set()

    def configure_optimizers(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One optimizer over what is trainable, one schedule that advances with every optimizer step."""
        try:
            optimizer = self.optimizer_factory(
                decay_groups(self.detector, self.weight_decay, self.decay)
            )
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The optimizer does not take its settings ({error})",
                "correct optimizer.NAME=VALUE",
            ) from error
        return {
            "optimizer": optimizer,
            "lr_scheduler": self.schedule_factory(optimizer, self.steps),
        }

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What learns, by timm's names, and what the method remembers."""
        remembered = {} if self.rule is None else self.rule.state_dict(prefix=METHOD)
        return adapter.state_dict(self.detector) | remembered

    def load_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> None:
        """Loads what `state_dict` gave, always strictly."""
        remembered = {
            name.removeprefix(METHOD): value
            for name, value in state_dict.items()
            if name.startswith(METHOD)
        }
        adapter.load_state_dict(
            self.detector,
            {name: value for name, value in state_dict.items() if not name.startswith(METHOD)},
            "the checkpoint",
        )
        if self.rule is not None:
            self.rule.load_state_dict(remembered)

    def full_precision(self) -> torch.autocast:
        """Lightning's autocast covers the whole training step; backward passes and all arithmetic on factors need their own precision."""
        return torch.autocast(self.device.type, enabled=False)

    def transfer_batch_to_device(
        self, batch: Frames, device: torch.device, dataloader_idx: int
    ) -> Frames:
        """Moves what the network sees; see `moved`."""
        return moved(batch, device)

    def on_train_epoch_start(self) -> None:
        """Forgets a group of batches that an interruption left behind."""
        self.waiting.clear()

    def training_step(self, batch: Frames, index: int) -> Tensor | None:
        """Gathers batches; makes an optimizer step of every `accumulate` ones, and of what is left at the end of the epoch.

        Returns:
            The loss of the step; None where none was made.
        """
        self.waiting.append(batch)
        if len(self.waiting) == self.accumulate or self.trainer.is_last_batch:
            group, self.waiting = self.waiting, []
            with self.full_precision():
                return self.step(group)
        return None

    def step(self, group: Sequence[Frames]) -> Tensor:
        """Makes an optimizer step of a group of batches, as if they were a single one, and returns its loss, over all processes."""
        numbers = [
            self.seed,
            self.global_step,
            self.global_rank,
            2,
        ]  # dropout follows from them alone, so that a resumed run repeats it
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        optimizer, schedule = (
            cast(LightningOptimizer, self.optimizers()),
            cast(LRScheduler, self.lr_schedulers()),
        )
        wrapper = ERM() if self.current_epoch < self.wrapper.warmup_epochs else self.wrapper
        passes, shares = self.passes(group, wrapper)
        inactive = () if self.rule is None else self.rule.inactive()
        params, head = trainable(self.detector), trainable(self.detector.head())
        outcome = wrapper(params, passes, inactive, summed if several() else None, head)
        self.note(outcome, shares)
        if self.rule is not None:
            self.rule.observe()
        loss = outcome.losses.sum() + self.penalise()
        self.log("train/loss", loss, prog_bar=True)
        if self.rule is not None:
            self.rule.before_step()
        self.clip_by_part(params, head)
        optimizer.step()
        optimizer.zero_grad()
        self.log("train/lr", schedule.get_last_lr()[0])
        schedule.step()
        return loss

    def passes(
        self, group: Sequence[Frames], wrapper: OptimizerWrapper
    ) -> tuple[list[Pass], Float[Tensor, " passes"]]:
        """The passes of a step, one per domain where the wrapper wants that, and their shares of its frames.

        The loss of a step is the mean over all its frames, on all processes; that of a pass is its
        part of this sum.
        """
        domain = torch.cat([batch.domain for batch in group])
        counts = (
            torch.bincount(domain[domain >= 0], minlength=len(self.domains))
            if wrapper.by_domain
            else (domain >= 0).sum()[None]
        )
        if several():
            counts = counts.to(self.device)
            summed([counts])
        total = int(counts.sum())
        constant = self.constant if self.reuse and not isinstance(wrapper, ERM) else ()

        def one(wanted: int | None) -> Pass:
            parts = [
                (*part, Prefix(constant))
                for batch in group
                if (part := share(batch, wanted)) is not None
            ]

            def run() -> Tensor:
                whole = torch.zeros((), device=self.device)
                for image, label, counting, prefix in parts:
                    with self.trainer.precision_plugin.forward_context(), prefix:
                        logits = self.detector(image).float()
                    losses = functional.binary_cross_entropy_with_logits(
                        logits, label.float(), reduction="none"
                    )
                    loss = (losses * counting).sum() / total
                    self.manual_backward(loss)
                    whole += loss.detach()
                return whole

            return Repeatable(run, self.detector)

        passes = [
            one(wanted) for wanted in (range(len(self.domains)) if wrapper.by_domain else (None,))
        ]
        return passes, counts.to(self.device) / total

    @functools.cached_property
    def constant(self) -> tuple[nn.Module, ...]:
        """The modules that never learn."""
        return frozen(self.detector)

    def penalise(self) -> Tensor:
        """Adds the gradient of the weighted penalties, once per optimizer step; logs each under its name and returns their sum."""
        terms = {
            name: weight * penalty(self.detector)
            for name, (weight, penalty) in self.adaptation.penalties.items()
        }
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        total = (
            torch.stack(list(terms.values())).sum()
            if terms
            else torch.zeros((), device=self.device)
        )
        if terms:
            self.manual_backward(total)
        return total.detach()

    def clip_by_part(self, params: Sequence[nn.Parameter], head: Sequence[nn.Parameter]) -> None:
        """Clips the gradients of head and backbone, each to its own norm, and logs these norms and that of both before.

        The head holds most of the gradient's length: clipped by a common norm, the backbone would
        hardly move.
        """
        inside = set(head)
        groups = {
            "head": head,
            "backbone": [parameter for parameter in params if parameter not in inside],
        }
        norms = {
            name: nn.utils.get_total_norm(existing_gradients(params)).to(self.device)
            for name, params in groups.items()
            if params
        }
        self.log("train/gradient_norm", torch.linalg.vector_norm(torch.stack(list(norms.values()))))
        for name, length in norms.items():
            self.log(f"train/gradient_norm/{name}", length)
            if self.clip is not None:
                nn.utils.clip_grads_with_norm_(groups[name], self.clip, length)

    def note(self, outcome: Outcome, shares: Float[Tensor, " passes"]) -> None:
        """Logs the classification loss, each domain's where the wrapper tells them apart, and the wrapper's diagnostics."""
        self.log("train/classification", outcome.losses.sum())
        if len(outcome.losses) == len(self.domains):
            means = (outcome.losses / shares).unbind()
            self.log_dict(
                {
                    f"train/classification/{name}": mean
                    for name, mean in zip(self.domains, means, strict=True)
                }
            )
        self.log_dict({f"train/{name}": value for name, value in outcome.diagnostics.items()})
        if self.global_step % LOOK == 0:
            self.warn(outcome)

    def warn(self, outcome: Outcome) -> None:
        """Warns, once of each, where the points that the wrapper evaluates lie down the gradient or too far up."""
        descent, perturbed = (outcome.diagnostics.get(name) for name in (DESCENT, PERTURBED_LOSS))
        if descent is not None and DESCENT not in self.warned and descent > 1:
            self.warned.add(DESCENT)
            log.warning(
                "train/descent_per_ascent is %.1f: the points that the wrapper evaluates lie down "
                "the gradient, not up; lower wrapper.alpha.",
                descent.item(),
            )
        if (
            perturbed is not None
            and PERTURBED_LOSS not in self.warned
            and perturbed > FAR * (loss := outcome.losses.sum())
        ):
            self.warned.add(PERTURBED_LOSS)
            log.warning(
                "The loss at the perturbed parameters is %.1f times the loss: they lie too far "
                "off to tell anything about it; lower wrapper.rho.",
                (perturbed / loss).item(),
            )

    def on_validation_start(self) -> None:
        """Takes over the first process's batch norm statistics, which are those that are saved."""
        if several():
            norms = (module for module in self.detector.modules() if isinstance(module, _BatchNorm))
            spread(buffer for module in norms for buffer in module.buffers(recurse=False))

    def validation_step(self, batch: Frames, index: int, dataloader_idx: int = 0) -> Predictions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scores a batch of the validation split, or of a test dataset that is watched."""
        return score(self.detector, batch)


class Scorer(LightningModule):
    """A detector as `trainer.predict` takes it."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def transfer_batch_to_device(
        self, batch: Frames, device: torch.device, dataloader_idx: int
    ) -> Frames:
        """Moves what the network sees; see `moved`."""
        return moved(batch, device)

    def predict_step(self, batch: Frames, index: int) -> Predictions:
        """Scores a batch."""
        return score(self.detector, batch)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def share(batch: Frames, wanted: int | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Images, labels and what each counts (1, or 0 where it only fills up a process's share) of a domain's frames, or of all; None if none."""
    counting = (batch.domain >= 0).float() if wanted is None else (batch.domain == wanted).float()
    if wanted is None or counting.all():
        return batch.image, batch.label, counting.to(batch.image.device, non_blocking=True)
    index = counting.nonzero().flatten().to(batch.image.device, non_blocking=True)
    return (
        (batch.image[index], batch.label[index], torch.ones(len(index), device=batch.image.device))
        if len(index)
        else None
    )


def score(detector: Detector, batch: Frames) -> Predictions:
    """The logits of a batch and which rows they belong to.

    Raises:
        InputError: a logit is not finite.
    """
    logit = detector(batch.image).float()
    if not logit.isfinite().all():
        raise InputError(
            "The detector's scores are not finite: training diverged", "lower optimizer.lr"
        )
    return Predictions(batch.row.cpu(), logit.cpu())
