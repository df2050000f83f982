"""Which parameters weight decay applies to."""

from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups of everything trainable: matrices with decay; biases, norms and what a module exempts without.

    A module exempts parameters by timm's convention, a method `no_weight_decay()` that returns their names.
    """
    exempt: set[nn.Parameter] = set()
    for module in model.modules():
        names = getattr(module, "no_weight_decay", set)()
        exempt |= {parameter for name, parameter in module.named_parameters() if name in names}
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim < 2 or parameter in exempt].append(parameter)
    return [{"params": own, "weight_decay": 0.0 if spared else weight_decay} for spared, own in groups.items() if own]
