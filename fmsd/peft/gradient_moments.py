"""Gradient moments of layers over micro-batches, the statistics behind FMSD's layer mask.

With the gradients g_b of a layer over micro-batches b = 1..B:

    gbar = mean_b g_b
    Var = (sum_b ||g_b||^2 - B ||gbar||^2) / (B - 1)
    Sig = max(||gbar||^2 - Var / B, 0)

Sig is the unbiased estimate of ||E g||^2, the systematic pull of the forgery objective on the
layer. The paper (arXiv 2601.01041 v2/v3) names only "the bias-variance characteristics of
layer-wise gradients"; the formulas are our reading.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmsd.errors import InputError

Losses = Iterable[Callable[[], Tensor]]
"""One closure per micro-batch; each runs a forward pass and returns a scalar."""


class Moments(NamedTuple):
    """Statistics of one layer's gradients.

    Args:
        bias: the squared systematic part: Sig, or over domains the mean of ||gbar_d - gbar||^2.
        variance: the summed variance of the gradient's entries.
        norm: ||gbar||^2.
        snr: the sum over the entries of gbar^2 / Var, entry by entry; 0 if it was not measured.
        entries: number of entries of the weight.
    """

    bias: float
    variance: float
    norm: float
    snr: float = 0.0
    entries: int = 0


class GradientSums(NamedTuple):
    """Sums over micro-batches of the gradients of some weights.

    Args:
        gradients: the sum of the gradients, per weight.
        squares: the sum of the entrywise squared gradients, per weight; empty if not requested.
        energies: the sum of the gradients' squared norms, per weight.
        batches: number of micro-batches.
    """

    gradients: dict[str, Tensor]
    squares: dict[str, Tensor]
    energies: dict[str, float]
    batches: int


def gradient_moments(
    weights: Mapping[str, nn.Parameter], losses: Losses, entrywise: bool = False
) -> dict[str, Moments]:
    """Measures gradient moments of each weight over the losses, streaming.

    One accumulator per weight is kept. A gradient is added to it and freed as soon as the backward
    pass has computed it, so that at most one gradient is in memory at a time.

    Args:
        entrywise: measure `snr` too, which takes a second accumulator per weight.

    Raises:
        InputError: fewer than 2 losses, a weight without a gradient, or a gradient that is not
            finite.
    """
    sums = _accumulate(weights, losses, entrywise)
    count, moments = sums.batches, {}
    for name, weight in weights.items():
        norm = _squared_norm(sums.gradients[name]) / count**2
        variance = max(sums.energies[name] - count * norm, 0.0) / (count - 1)
        snr = _snr(sums.gradients[name], sums.squares[name], count) if entrywise else 0.0
        bias = max(norm - variance / count, 0.0)
        moments[name] = Moments(bias, variance, norm, snr, weight.numel())
    return _check_finite(moments)


def domain_moments(
    weights: Mapping[str, nn.Parameter], losses: Mapping[str, Losses]
) -> dict[str, Moments]:
    """Measures gradient moments between and within domains.

    The bias is the mean over domains of ||gbar_d - gbar||^2, the variance the mean of the variances
    within the domains. Domains are measured one after the other, so two accumulators per weight
    suffice whatever their number. The bias contains the noise of the gbar_d, a fixed share of the
    variance; the order of the layers' scores does not depend on it.

    Raises:
        InputError: as `gradient_moments`.
    """
    total = {
        name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()
    }
    norms, variances = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0.0)
    for domain_losses in losses.values():
        sums = _accumulate(weights, domain_losses)
        count = sums.batches
        for name in weights:
            norm = _squared_norm(sums.gradients[name]) / count**2
            norms[name] += norm / len(losses)
            variances[name] += (
                max(sums.energies[name] - count * norm, 0.0) / (count - 1) / len(losses)
            )
            total[name] += sums.gradients.pop(name).div_(count * len(losses))
    moments = {}
    for name, weight in weights.items():
        joint = _squared_norm(total[name])
        bias = max(norms[name] - joint, 0.0)
        moments[name] = Moments(bias, variances[name], joint, entries=weight.numel())
    return _check_finite(moments)


def _accumulate(
    weights: Mapping[str, nn.Parameter], losses: Losses, entrywise: bool = False
) -> GradientSums:
    """Sums gradients over the losses, and with `entrywise` their squared entries."""
    sums = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    squares = {name: torch.zeros_like(total) for name, total in sums.items()} if entrywise else {}
    norms: dict[str, list[Tensor]] = {name: [] for name in weights}

    def accumulator(name: str) -> Callable[[Tensor], None]:
        def hook(weight: Tensor) -> None:
            assert weight.grad is not None
            sums[name].add_(weight.grad)
            if entrywise:
                squares[name].addcmul_(weight.grad, weight.grad)
            norms[name].append(torch.linalg.vector_norm(weight.grad, dtype=torch.float32))
            weight.grad = None

        return hook

    handles = [
        weight.register_post_accumulate_grad_hook(accumulator(name))
        for name, weight in weights.items()
    ]
    count = 0
    try:
        for loss in losses:
            loss().backward()
            count += 1
    finally:
        for handle in handles:
            handle.remove()
    if count < 2:
        raise InputError(
            f"The layer mask needs gradients of at least 2 batches and got {count}",
            "raise trainer.limit_train_batches, or set method.mask.bias=none",
        )
    if silent := [name for name, values in norms.items() if not values]:
        raise InputError(
            f"No gradient reaches the layer {silent[0]!r}", f"add '!{silent[0]}' to method.patterns"
        )
    energies = {
        name: torch.stack(values).cpu().double().square().sum().item()
        for name, values in norms.items()
    }
    return GradientSums(sums, squares, energies, count)


def _snr(gradients: Tensor, squares: Tensor, count: int) -> float:
    """The sum over the entries of mean^2 / variance; an entry without gradients counts 0.

    A variance is at least the rounding error of its terms: the ratio of a constant gradient is
    large, not infinite.
    """
    mean, energy = (gradients / count).square_(), squares / count
    rounding = torch.finfo(energy.dtype).eps * energy
    variance = torch.maximum(energy - mean, rounding).mul_(count / (count - 1))
    return torch.where(variance > 0, mean / variance, 0.0).sum().item()


def _squared_norm(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(tensor.detach(), dtype=torch.float32).item() ** 2


def _check_finite(moments: dict[str, Moments]) -> dict[str, Moments]:
    for name, values in moments.items():
        if not all(math.isfinite(value) for value in values):
            raise InputError(
                f"The gradients of {name!r} are not finite, so no layer can be chosen",
                "lower method.mask.warmup_lr, or check the weights",
            )
    return moments
