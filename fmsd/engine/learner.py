"""The training step. The learner owns no method: it brings detector, wrapper, optimizer, schedule and penalties together."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fmsd.models.detector import Detector
from fmsd.optim.groups import decay_groups
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.peft import adapter
from fmsd.peft.method import Adaptation
from fmsd.types import Frames, InputError, Predictions

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Makes a torch optimizer from parameter groups, e.g. `partial(AdamW, lr=1e-3)`."""

ScheduleFactory = Callable[[Optimizer, int], LRScheduler]
"""Makes a schedule from an optimizer and the number of its steps."""

METHOD = "method/"
"""Prefix, in a checkpoint, of what a method remembers."""


class Learner(LightningModule):
    """Trains a detector by manual optimisation, so that a wrapper may run several passes per step.

    Lightning refuses `gradient_clip_val` and `accumulate_grad_batches` under manual optimisation: they are arguments here.

    Its state, and so a checkpoint, holds what learns; the frozen rest of the backbone is the base that the detector is made from.

    Args:
        steps: optimizer steps of the whole training, for the schedule.
        weight_decay: for matrices; biases, norms and subspace factors get none.
        accumulate: batches per optimizer step; the mean of their losses counts.
        clip: largest norm of the gradient; None for no limit.
    """

    def __init__(
        self,
        detector: Detector,
        wrapper: OptimizerWrapper,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        adaptation: Adaptation,
        steps: int,
        weight_decay: float = 0.0,
        accumulate: int = 1,
        clip: float | None = None,
    ) -> None:
        super().__init__()
        if accumulate < 1 or (clip is not None and clip <= 0):
            raise InputError(f"learner.accumulate={accumulate} must be at least 1 and learner.clip={clip} above 0 (null for no limit).")
        self.automatic_optimization = False
        self.detector = detector
        self.wrapper = wrapper
        self.optimizer_factory = optimizer
        self.schedule_factory = schedule
        self.adaptation = adaptation
        self.remembered = adaptation.state
        self.steps = steps
        self.weight_decay = weight_decay
        self.accumulate = accumulate
        self.clip = clip

    def configure_optimizers(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One optimizer over what is trainable, one schedule that advances with every optimizer step."""
        try:
            optimizer = self.optimizer_factory(decay_groups(self.detector, self.weight_decay))
        except (TypeError, ValueError) as error:
            raise InputError(f"The optimizer does not take its settings ({error}); correct optimizer.NAME=VALUE.") from error
        return {"optimizer": optimizer, "lr_scheduler": self.schedule_factory(optimizer, self.steps)}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What learns, by timm's names, and what the method remembers."""
        remembered = {} if self.remembered is None else self.remembered.state_dict(prefix=METHOD)
        return adapter.state(self.detector) | remembered

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> None:  # pyright: ignore
        """Loads what `state_dict` gave, always strictly."""
        remembered = {name.removeprefix(METHOD): value for name, value in state_dict.items() if name.startswith(METHOD)}
        adapter.restore(self.detector, {name: value for name, value in state_dict.items() if not name.startswith(METHOD)}, "the checkpoint")
        if self.remembered is not None:
            self.remembered.load_state_dict(remembered)

    def loss(self, batch: Frames) -> Tensor:
        """The classification loss, the only one that depends on data."""
        return functional.binary_cross_entropy_with_logits(self.detector(batch.image).float(), batch.label.float())

    def full_precision(self) -> torch.autocast:
        """Lightning's autocast reaches into the backward pass and all arithmetic on factors, which needs float32: this switches it off."""
        return torch.autocast(self.device.type, enabled=False)

    def backpropagate(self, loss: Tensor) -> None:
        """A backward pass in the precision of each operation's forward pass."""
        with self.full_precision():
            self.manual_backward(loss)

    def penalise(self) -> Tensor:
        """Adds the gradient of the weighted penalties, once per optimizer step; logs each under its name and returns their sum."""
        terms = {name: weight * penalty(self.detector) for name, (weight, penalty) in self.adaptation.penalties.items()}
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        total = torch.stack(list(terms.values())).sum() if terms else torch.zeros((), device=self.device)
        if terms:
            self.manual_backward(total)
        return total.detach()

    def training_step(self, batch: Frames, index: int) -> Tensor:
        """Gathers gradients through the wrapper; steps after every `accumulate` batches and at the end of the epoch."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        trainable = [parameter for parameter in self.detector.parameters() if parameter.requires_grad]
        first = index - index % self.accumulate
        together = min(self.accumulate, int(self.trainer.num_training_batches) - first)  # the last group of an epoch may be smaller
        loss = self.wrapper(trainable, [lambda: self.loss(batch) / together], self.backpropagate) * together
        self.log("train/classification", loss)
        if (index + 1) % self.accumulate == 0 or self.trainer.is_last_batch:
            with self.full_precision():
                if self.adaptation.observe is not None:
                    self.adaptation.observe()
                self.log("train/loss", loss + self.penalise(), prog_bar=True)
                if self.adaptation.before_step is not None:
                    self.adaptation.before_step()
            if self.clip is not None:
                self.log("train/gradient_norm", nn.utils.clip_grad_norm_(trainable, self.clip))
            optimizer.step()
            if self.adaptation.after_step is not None:
                with self.full_precision():
                    self.adaptation.after_step()
            optimizer.zero_grad()
            schedule = cast(LRScheduler, self.lr_schedulers())
            self.log("train/lr", schedule.get_last_lr()[0])
            schedule.step()
        return loss

    def validation_step(self, batch: Frames, index: int) -> Predictions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scores a batch of the validation split."""
        return score(self.detector, batch)


class Scorer(LightningModule):
    """A detector as `trainer.predict` takes it."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def predict_step(self, batch: Frames, index: int) -> Predictions:
        """Scores a batch."""
        return score(self.detector, batch)


def score(detector: Detector, batch: Frames) -> Predictions:
    """The logits of a batch and which rows they belong to.

    Raises:
        InputError: a logit is not finite.
    """
    logit = detector(batch.image).float()
    if not logit.isfinite().all():
        raise InputError("The detector's scores are not finite: training diverged; lower optimizer.lr.")
    return Predictions(batch.row.cpu(), logit.cpu())
