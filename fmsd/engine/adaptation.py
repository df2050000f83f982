"""Adaptation: a detector is built and a method makes part of it trainable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lightning.pytorch import Trainer
from torch import nn

from fmsd.engine.datamodule import DataModule
from fmsd.engine.distributed import broadcast_tensors
from fmsd.engine.lightning_compat import forward_context
from fmsd.engine.measurement_batches import MeasurementBatches
from fmsd.models.detector import Detector
from fmsd.peft import adapter
from fmsd.peft.method import Adaptation, Method
from fmsd.peft.spectra import effective_spectra, sample_matrices


@dataclass(frozen=True)
class AdaptedDetector:
    """A detector whose trainable part a method has chosen.

    Args:
        adaptation: the method's part in training.
        parameters: number of scalar parameters before adaptation.
        trainable: number of trainable scalar parameters.
        spectra: singular values of some adapted matrices before training, by name.
    """

    model: Detector
    adaptation: Adaptation
    parameters: int
    trainable: int
    spectra: Mapping[str, list[float]]

    @property
    def description(self) -> str:
        """The share of trainable parameters, in words."""
        return f"{self.trainable:,} of {self.parameters:,} parameters"


def adapt(
    model: Detector, method: Method, trainer: Trainer, data: DataModule, mask: Path | None
) -> AdaptedDetector:
    """Adapts a detector on the device where it is trained, alike in every process.

    Args:
        mask: the layer mask of a training that was interrupted.
    """
    parameters = count_parameters(model.parameters())
    adaptation = apply_method(model, method, trainer, data, mask)
    trainable = count_parameters(
        parameter for parameter in model.parameters() if parameter.requires_grad
    )
    return AdaptedDetector(
        model, adaptation, parameters, trainable, effective_spectra(model, sample_matrices(model))
    )


def apply_method(
    model: Detector, method: Method, trainer: Trainer, data: DataModule, mask: Path | None
) -> Adaptation:
    """Applies a method, which may measure training batches; broadcasts its tensors from rank 0."""
    limit, device = trainer.limit_train_batches, trainer.strategy.root_device
    batches = MeasurementBatches(
        data,
        device,
        precision=partial(forward_context, trainer),
        limit=limit if isinstance(limit, int) else None,
        mask=mask,
    )
    adaptation = method(model.to(device), batches)
    if trainer.world_size > 1:
        tensors = {
            name: tensor.detach().clone() for name, tensor in adapter.state_dict(model).items()
        }
        broadcast_tensors(tensors.values())
        adapter.load_state_dict(model, tensors, "the first process")
    model.train()
    return adaptation


def count_parameters(parameters: Iterable[nn.Parameter]) -> int:
    """Total number of scalar parameters."""
    return sum(parameter.numel() for parameter in parameters)
