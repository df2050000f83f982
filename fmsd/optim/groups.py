"""Which parameters weight decay applies to."""

from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two parameter groups of everything trainable: matrices with decay; biases, norms and what a module exempts without.

    A module exempts parameters by timm's convention, a method `no_weight_decay()` that returns their names.
    """
    exempt: set[nn.Parameter] = set()
    for module in model.modules():
        names = getattr(module, "no_weight_decay", set)()
        exempt |= {parameter for name, parameter in module.named_parameters() if name in names}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    spared = [parameter for parameter in trainable if parameter.ndim < 2 or parameter in exempt]
    decayed = [parameter for parameter in trainable if not (parameter.ndim < 2 or parameter in exempt)]
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
