"""Which parameters weight decay applies to, and which learn at a rate of their own."""

from typing import Literal

from torch import nn
from torch.optim import Optimizer

Decay = Literal["matrices", "all"]
"""What weight decay applies to: matrices that no module exempts, or everything trainable, as torch's optimizers have it."""


def decay_groups(model: nn.Module, weight_decay: float, decay: Decay = "matrices") -> list[dict[str, object]]:
    """Parameter groups of everything trainable: matrices with decay; without it biases, norms and what a module exempts, unless `decay` is `all`.

    A module exempts parameters by timm's convention, a method `no_weight_decay()` that returns their names. By a method `rates()` it gives
    parameters a multiple of the learning rate; they are groups of their own, which say so as `rate` for `at_their_rates`.
    """
    exempt: set[nn.Parameter] = set()
    rates: dict[nn.Parameter, float] = {}
    for module in model.modules():
        names, own = getattr(module, "no_weight_decay", set)(), getattr(module, "rates", dict)()
        exempt |= {parameter for name, parameter in module.named_parameters() if name in names}
        rates |= {parameter: own[name] for name, parameter in module.named_parameters() if name in own}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(False, 1.0): [], (True, 1.0): []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            spared = decay == "matrices" and (parameter.ndim < 2 or parameter in exempt)
            groups.setdefault((spared, rates.get(parameter, 1.0)), []).append(parameter)
    found: list[dict[str, object]] = []
    for (spared, rate), own in groups.items():
        if own:
            found.append({"params": own, "weight_decay": 0.0 if spared else weight_decay})
            if rate != 1:
                found[-1]["rate"] = rate
    return found


def at_their_rates(optimizer: Optimizer) -> Optimizer:
    """The optimizer with the learning rate of each group times its `rate`; call it once, before there is a schedule."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("rate", 1.0)
    return optimizer
