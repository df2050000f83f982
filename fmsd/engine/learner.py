"""The training step: brings detector, wrapper, optimizer, schedule and method together."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from fmsd.engine.diagnostics import warn_of_perturbation
from fmsd.engine.distributed import all_reduce_sum, broadcast_tensors, is_distributed
from fmsd.engine.domains import Part, count_frames, select_domain
from fmsd.engine.feature_capture import CaptureCallback
from fmsd.engine.learner_settings import LearnerSettings
from fmsd.engine.lightning_compat import forward_context
from fmsd.engine.passes import loss_pass
from fmsd.engine.scorer import score_batch
from fmsd.engine.transfer import to_device
from fmsd.errors import InputError
from fmsd.losses.detection import DetectionLoss
from fmsd.losses.loss import Loss, Outputs, check_views
from fmsd.models.detector import Detector
from fmsd.models.features import FeatureCapture
from fmsd.optim.erm import ERM
from fmsd.optim.flat import existing_gradients
from fmsd.optim.groups import decay_groups, trainable_parameters
from fmsd.optim.replay import Repeatable
from fmsd.optim.wrapper import OptimizerWrapper, Pass, StepOutcome, check_head
from fmsd.peft import adapter
from fmsd.peft.method import Adaptation
from fmsd.types import Frames, Predictions

log = logging.getLogger(__name__)

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Makes a torch optimizer from parameter groups, e.g. `partial(AdamW, lr=1e-3)`."""

ScheduleFactory = Callable[[Optimizer, int], LRScheduler]
"""Makes a schedule from an optimizer and the number of its steps."""

WARN_EVERY = 10
"""Steps between two checks of diagnostics, each of which waits for the device."""

DROPOUT = 2
"""Keeps dropout's random stream apart from other streams of the same seed."""

METHOD_PREFIX = "method/"
"""Prefix of the names of a method's own state in a checkpoint."""


class Learner(LightningModule):
    """Trains a detector by manual optimisation, so that a wrapper may run several passes per step.

    The state dict, and so a checkpoint, holds the trainable tensors alone.

    Args:
        steps: optimizer steps of the whole training, for the schedule.
        settings: of the optimizer step; None for the defaults.
        loss: of the frames of a step; None for binary cross-entropy.
        domains: names of the domains in the order of their ids, for a wrapper with a pass per
            domain; every batch must hold all of them.
        seed: of dropout.
        callbacks: run beside the trainer's own while this learner is trained.

    Raises:
        InputError: a wrapper by domain without domains, one that perturbs the backbone where only
            the head is trainable, or a loss of features that the backbone's head has not.
    """

    def __init__(
        self,
        detector: Detector,
        wrapper: OptimizerWrapper,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        adaptation: Adaptation,
        steps: int,
        settings: LearnerSettings | None = None,
        loss: Loss | None = None,
        domains: Sequence[str] = (),
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        super().__init__()
        if wrapper.by_domain and not domains:
            raise InputError(
                "The wrapper aligns forgery domains, and the batches hold none",
                "set data.batches=balanced (or natural, balanced_pairs, natural_pairs)",
            )
        params, head = trainable_parameters(detector), trainable_parameters(detector.head())
        check_head(wrapper.perturb, params, head)
        self.automatic_optimization = False
        self.detector = detector
        self.settings = settings or LearnerSettings()
        self.compiled_forward = torch.compile(detector.forward) if self.settings.compiled else None
        self.loss: Loss = loss or DetectionLoss()
        self.capture = FeatureCapture(detector) if self.loss.needs_features else None
        self.wrapper = wrapper
        self.optimizer_factory = optimizer
        self.schedule_factory = schedule
        self.adaptation = adaptation
        self.step_rule = adaptation.rule
        self.steps = steps
        self.domains = list(domains)
        self.seed = seed
        self.callbacks = list(callbacks)
        if self.capture is not None:
            self.callbacks.append(CaptureCallback(self.capture))
        self.validation_loss = MeanMetric()
        self.pending_batches: list[Frames] = []
        self.warned: set[str] = set()

    def forward(self, image: Tensor) -> Tensor:
        """The logits of images."""
        return (self.compiled_forward or self.detector)(image)

    def configure_callbacks(self) -> list[Callback]:
        """The callbacks that Lightning adds to the trainer's own."""
        return self.callbacks

    def configure_optimizers(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One optimizer over the trainable parameters and a schedule that advances with its steps.

        Raises:
            InputError: the optimizer refuses its settings.
        """
        groups = decay_groups(self.detector, self.settings.weight_decay, self.settings.decay)
        try:
            optimizer = self.optimizer_factory(groups)
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
        """The trainable tensors by timm's names, and the method's own state."""
        tensors: dict[str, Any] = adapter.state_dict(self.detector)
        if self.step_rule is not None:
            tensors |= self.step_rule.state_dict(prefix=METHOD_PREFIX)
        return tensors

    def load_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> None:
        """Loads a state dict of this class, always strictly.

        Raises:
            InputError: its tensors do not fit the detector.
        """
        trainable, method_state = {}, {}
        for name, value in state_dict.items():
            if name.startswith(METHOD_PREFIX):
                method_state[name.removeprefix(METHOD_PREFIX)] = value
            else:
                trainable[name] = value
        adapter.load_state_dict(self.detector, trainable, "the checkpoint")
        if self.step_rule is not None:
            self.step_rule.load_state_dict(method_state)

    def full_precision(self) -> torch.autocast:
        """Disables Lightning's autocast of the whole step: only forward passes run under it."""
        return torch.autocast(self.device.type, enabled=False)

    def transfer_batch_to_device(
        self, batch: Frames, device: torch.device, dataloader_idx: int
    ) -> Frames:
        """Moves pixels and labels to the device."""
        return to_device(batch, device)

    def on_train_epoch_start(self) -> None:
        """Drops batches that an earlier, interrupted fit of this learner left without a step."""
        self.pending_batches.clear()

    def training_step(self, batch: Frames, index: int) -> Tensor | None:
        """Collects batches; steps after every `accumulate` ones and at the end of an epoch.

        Returns:
            The loss of the optimizer step; None where none was made.
        """
        self.pending_batches.append(batch)
        if len(self.pending_batches) == self.settings.accumulate or self.trainer.is_last_batch:
            group, self.pending_batches = self.pending_batches, []
            with self.full_precision():
                return self.step(group)
        return None

    def step(self, group: Sequence[Frames]) -> Tensor:
        """Makes one optimizer step of a group of batches; returns its loss over all processes."""
        # dropout follows from these numbers alone, so that a resumed run repeats it
        entropy = [self.seed, self.global_step, self.global_rank, DROPOUT]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        optimizer = cast(LightningOptimizer, self.optimizers())
        schedule = cast(LRScheduler, self.lr_schedulers())
        wrapper = ERM() if self.current_epoch < self.wrapper.warmup_epochs else self.wrapper
        passes, shares, terms = self.passes(group, wrapper)
        inactive = () if self.step_rule is None else self.step_rule.inactive()
        params = trainable_parameters(self.detector)
        head = trainable_parameters(self.detector.head())
        reduce = all_reduce_sum if is_distributed() else None
        outcome = wrapper(params, passes, inactive, reduce, head)
        if reduce is not None and len(self.loss.terms) > 1:
            reduce([terms])
        self.log_outcome(outcome, shares, terms)
        if self.step_rule is not None:
            self.step_rule.observe()
        penalty = self.backward_penalties()
        loss = outcome.losses.sum() + penalty
        self.log("train/loss", loss, prog_bar=True)
        if self.step_rule is not None:
            self.step_rule.before_step()
        self.clip_by_part(params, head)
        optimizer.step()
        optimizer.zero_grad()
        self.log("train/lr", schedule.get_last_lr()[0])
        schedule.step()
        return loss

    def passes(
        self, group: Sequence[Frames], wrapper: OptimizerWrapper
    ) -> tuple[list[Pass], Float[Tensor, " passes"], Float[Tensor, "passes terms"]]:
        """The passes of a step, one per domain if wanted, and their shares of its frames.

        The third value gets the terms of the loss, from the first run of each pass.
        """
        domains = len(self.domains) if wrapper.by_domain else None
        counts = count_frames(group, domains)
        if is_distributed():
            counts = counts.to(self.device)
            all_reduce_sum([counts])
        total = int(counts.sum())
        selected = (None,) if domains is None else range(domains)
        terms = torch.zeros(len(selected), len(self.loss.terms), device=self.device)
        passes: list[Pass] = []
        for domain_id, row in zip(selected, terms, strict=True):
            chosen = (select_domain(batch, domain_id) for batch in group)
            parts = [part for part in chosen if part is not None]
            run = loss_pass(parts, total, self.loss, self.outputs, self.manual_backward, row)
            passes.append(Repeatable(run, self.detector))
        return passes, counts.to(self.device) / total, terms

    def outputs(self, part: Part) -> Outputs:
        """The outputs that the loss needs of some frames; a second forward pass for a second view.

        Raises:
            InputError: the loss needs a second view, and the batch has none.
        """
        logit, feature = self.logit_and_feature(part.image)
        outputs = Outputs(logit, part.label, part.weight, self.global_step / self.steps, feature)
        if part.strong is None:
            check_views(self.loss, None)
        elif self.loss.needs_strong_view:
            return outputs._replace(strong_logit=self.logit_and_feature(part.strong)[0])
        return outputs

    def logit_and_feature(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits of images in float32, and the features if the loss needs them."""
        with forward_context(self.trainer):
            logit = self(image).float()
        return logit, None if self.capture is None else self.capture.take()

    def backward_penalties(self) -> Tensor:
        """Runs the backward pass of the weighted penalties; logs each and returns their sum."""
        terms = {
            name: weight * penalty(self.detector)
            for name, (weight, penalty) in self.adaptation.penalties.items()
        }
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        if not terms:
            return torch.zeros((), device=self.device)
        total = torch.stack(list(terms.values())).sum()
        self.manual_backward(total)
        return total.detach()

    def clip_by_part(self, params: Sequence[nn.Parameter], head: Sequence[nn.Parameter]) -> None:
        """Clips the gradients of head and backbone, each to its own norm, and logs the norms.

        The head holds most of the gradient's length: clipped by a common norm, the backbone would
        hardly move.
        """
        in_head = set(head)
        groups = {
            "head": head,
            "backbone": [parameter for parameter in params if parameter not in in_head],
        }
        norms = {
            name: nn.utils.get_total_norm(existing_gradients(members)).to(self.device)
            for name, members in groups.items()
            if members
        }
        self.log("train/gradient_norm", torch.linalg.vector_norm(torch.stack(list(norms.values()))))
        for name, norm in norms.items():
            self.log(f"train/gradient_norm/{name}", norm)
            if self.settings.clip is not None:
                nn.utils.clip_grads_with_norm_(groups[name], self.settings.clip, norm)

    def log_outcome(
        self,
        outcome: StepOutcome,
        shares: Float[Tensor, " passes"],
        terms: Float[Tensor, "passes terms"],
    ) -> None:
        """Logs the terms of the loss, by domain where known, and the wrapper's diagnostics."""
        if len(self.loss.terms) == 1:
            terms = outcome.losses[:, None]
        for term, losses in zip(self.loss.terms, terms.unbind(1), strict=True):
            self.log(f"train/{term}", losses.sum())
            if len(outcome.losses) == len(self.domains):
                means = (losses / shares).unbind()
                by_domain = zip(self.domains, means, strict=True)
                self.log_dict({f"train/{term}/{name}": mean for name, mean in by_domain})
        self.log_dict({f"train/{name}": value for name, value in outcome.diagnostics.items()})
        if self.global_step % WARN_EVERY == 0:
            warn_of_perturbation(outcome, self.warned)

    def on_validation_start(self) -> None:
        """Broadcasts batch norm statistics from rank 0, whose statistics are saved."""
        if is_distributed():
            norms = (module for module in self.detector.modules() if isinstance(module, _BatchNorm))
            broadcast_tensors(
                buffer for module in norms for buffer in module.buffers(recurse=False)
            )

    def validation_step(self, batch: Frames, index: int, dataloader_idx: int = 0) -> Predictions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scores a batch of the validation split, or of a test dataset that is watched.

        The mean loss of the split is logged as `val/loss`; metrics of videos need all scores, see
        `fmsd.engine.model_selection.ValidationMetrics`.
        """
        predictions = score_batch(self, batch)
        if dataloader_idx == 0:
            losses = functional.binary_cross_entropy_with_logits(
                predictions.logit, batch.label.cpu().float(), reduction="none"
            )
            self.validation_loss.update(losses.to(self.device))
            self.log("val/loss", self.validation_loss, add_dataloader_idx=False)
        return predictions
