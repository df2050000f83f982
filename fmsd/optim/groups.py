"""Parameters of an optimizer: which are trainable, and which of them decay."""

from typing import Literal

from torch import nn

Decay = Literal["matrices", "all"]
"""Weight decay on matrices that no module exempts, or on every trainable parameter."""


def decay_groups(
    model: nn.Module, weight_decay: float, decay: Decay = "matrices"
) -> list[dict[str, object]]:
    """Returns parameter groups of all trainable parameters, with and without weight decay.

    With decay="matrices" vectors (biases, norms) and exempt parameters have none. A module exempts
    parameters by timm's convention, a method `no_weight_decay()` that returns their names.
    """
    exempt: set[nn.Parameter] = set()
    for module in model.modules():
        names = getattr(module, "no_weight_decay", set)()
        exempt |= {parameter for name, parameter in module.named_parameters() if name in names}
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for parameter in trainable_parameters(model):
        undecayed = decay == "matrices" and (parameter.ndim < 2 or parameter in exempt)
        groups[undecayed].append(parameter)
    return [
        {"params": members, "weight_decay": 0.0 if undecayed else weight_decay}
        for undecayed, members in groups.items()
        if members
    ]


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module that require a gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
