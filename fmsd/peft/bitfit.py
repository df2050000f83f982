"""BitFit: only bias vectors are trained.

Ben Zaken, Goldberg and Ravfogel, ACL 2022, arXiv 2106.10199.
"""

from torch import nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe


def bitfit(detector: Detector, batches: Batches | None = None) -> Adaptation:
    """Makes every bias vector and the head trainable.

    Raises:
        InputError: no layer but the head has a bias.
    """
    probe(detector)
    chosen = [
        parameter
        for name, parameter in detector.backbone.named_parameters()
        if not parameter.requires_grad and is_bias(name, parameter)
    ]
    if not chosen:
        raise InputError(
            f"No layer of {type(detector.backbone).__name__} but its head has a bias, so "
            "method=bitfit has nothing to train",
            "choose another method, e.g. method=lora",
        )
    for bias in chosen:
        bias.requires_grad_(True)
    return Adaptation()


def is_bias(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a bias vector by its name: `bias`, or `q_bias` and the like.

    timm keeps the biases of a fused q, k, v apart under the latter. Tables of relative positions
    are no biases.
    """
    return parameter.ndim == 1 and (name.rpartition(".")[2] == "bias" or name.endswith("_bias"))
