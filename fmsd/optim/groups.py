"""Which parameters weight decay applies to."""

from typing import Literal

from torch import nn

Decay = Literal["matrices", "all"]
"""What weight decay applies to: matrices that no module exempts, or everything trainable, as torch's optimizers have it."""


def decay_groups(
    model: nn.Module, weight_decay: float, decay: Decay = "matrices"
) -> list[dict[str, object]]:
    """Parameter groups of everything trainable: matrices with decay; without it biases, norms and what a module exempts, unless `decay` is `all`.

    A module exempts parameters by timm's convention, a method `no_weight_decay()` that returns
    their names.
    """
    exempt: set[nn.Parameter] = set()
    for module in model.modules():
        names = getattr(module, "no_weight_decay", set)()
        exempt |= {parameter for name, parameter in module.named_parameters() if name in names}
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[decay == "matrices" and (parameter.ndim < 2 or parameter in exempt)].append(
                parameter
            )
    return [
        {"params": own, "weight_decay": 0.0 if spared else weight_decay}
        for spared, own in groups.items()
        if own
    ]
