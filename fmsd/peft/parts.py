"""The role of each tensor of a backbone in the network, by the types of its modules."""

from torch import nn

from fmsd.merge.task_vectors import TensorPart
from fmsd.models.detector import Detector
from fmsd.models.head import CosineHead
from fmsd.peft import adapter
from fmsd.peft.bitfit import is_bias
from fmsd.peft.inject import stack_size
from fmsd.peft.norm import NORMS


def network_parts(detector: Detector) -> dict[str, TensorPart]:
    """The role of every tensor of a backbone, by the types of its modules."""
    kinds: dict[str, TensorPart] = {}
    head = set(detector.head().modules())
    for prefix, module in detector.backbone.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            whole = f"{prefix}.{name}" if prefix else name
            kinds[whole] = (
                TensorPart("matrix", stack_size(prefix))
                if name == "weight" and is_matrix(module)
                else TensorPart("other")
            )
            if module in head:
                kinds[whole] = TensorPart(
                    "direction" if isinstance(module, CosineHead) and name == "weight" else "head"
                )
            elif name == "in_proj_weight" and isinstance(module, nn.MultiheadAttention):
                kinds[whole] = TensorPart("matrix", 3)
        for name, buffer in module.named_buffers(recurse=False):
            kinds[f"{prefix}.{name}" if prefix else name] = TensorPart(
                "statistic" if buffer.is_floating_point() else "counter"
            )
    affine = affine_names(detector)
    return {
        name: kinds[name]._replace(affine=kinds[name].kind == "other" and name in affine)
        for name in detector.backbone.state_dict()
    }


def affine_names(detector: Detector) -> set[str]:
    """The names of biases and of the parameters of normalisation layers."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in detector.backbone.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, NORMS) or is_bias(name, parameter)
    }


def is_matrix(module: nn.Module) -> bool:
    """Whether a module's weight is a matrix: a linear layer, or a convolution without groups."""
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1 and not module.transposed
    )


def changed_parts(detector: Detector, changed: set[str]) -> dict[str, TensorPart]:
    """The parts of a merged adapter: changed tensors, and the buffers of their modules.

    Makes the detector's changed parameters trainable and freezes the rest, as `adapter.load` does.

    Args:
        changed: names of the tensors that some specialist changed.
    """
    for name, parameter in detector.backbone.named_parameters():
        parameter.requires_grad_(name in changed)
    kept = adapter.state_dict(detector)
    return {name: part for name, part in network_parts(detector).items() if name in kept}
