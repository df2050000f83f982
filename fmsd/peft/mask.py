"""Forgery-aware layer masking: gradient moments -> scores -> the layers that learn (FMSD, arXiv 2601.01041 v2/v3).

The paper says: the masking "evaluates the bias-variance characteristics of layer-wise gradients to
identify forgery-sensitive layers". The formulas are our reading. With the gradients g_b of a layer
over micro-batches b = 1..B:

    gbar = mean_b g_b      Var = (sum_b ||g_b||^2 - B ||gbar||^2) / (B - 1)      Sig = max(||gbar||^2 - Var / B, 0)

Sig is the unbiased estimate of ||E g||^2, the systematic pull of the forgery objective on the
layer.

Beside it stands Auto-SNR (Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution
Shifts", ICLR 2023, arXiv 2210.11466): the mean over a layer's entries of (E g)^2 / Var g, from the
sample mean and the sample variance as they are; the first is not corrected for its own variance, so
without any signal the score is about 1 / B, for every layer alike.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.shares import ceil_share

Losses = Iterable[Callable[[], Tensor]]
"""One closure per micro-batch; each runs a forward pass and returns a scalar."""

FORMAT = 1
"""Version of the file that a mask is written to."""


class Moments(NamedTuple):
    """Statistics of one layer's gradients.

    Args:
        bias: the squared systematic part: Sig, or with domains the mean of ||gbar_d - gbar||^2.
        variance: the summed variance of the gradient's entries.
        norm: ||gbar||^2.
        size: ||W||_F^2.
        snr: the sum over the entries of gbar^2 / Var, each entry's own; 0 where it was not
            measured.
        entries: how many there are.
    """

    bias: float
    variance: float
    norm: float
    size: float
    snr: float = 0.0
    entries: int = 0


class Sums(NamedTuple):
    """What is kept of the gradients of some weights over micro-batches.

    Args:
        gradients: their sum, per weight.
        squares: the sum of their squared entries, per weight; empty where it was not asked for.
        energies: the sum of their squared norms, per weight.
        batches: how many micro-batches there were.
    """

    gradients: dict[str, Tensor]
    squares: dict[str, Tensor]
    energies: dict[str, float]
    batches: int


@dataclass(frozen=True)
class Masking:
    """How layers are chosen.

    Args:
        bias: `signal` scores by Sig; `domain` by how much the forgery domains disagree, where a low
            score is kept: a high one marks what is specific to a forgery; `norm` by ||gbar||^2;
            `snr` by the mean over the entries of gbar^2 / Var; `random` by chance; `none` keeps
            every layer and looks at no data.
        score: of `signal` and `domain`: `share` Sig / (Sig + Var), free of layer size; `relative`
            Sig / ||W||^2.
        fraction: share of the layers to keep, rounded up.
        threshold: keep the scores at or above this number, or above their `mean`, instead of a
            fraction; for `domain`, at or below.
        unit: choose single linear layers, or whole blocks.
        batches: number B of micro-batches, at least 2.
        warmup_steps: optimizer steps of the head alone before the gradients are measured.
        warmup_lr: AdamW's learning rate for them.
        file: the `mask.json` of another run, to choose the same layers without measuring.
        seed: of the random choice.
    """

    bias: Literal["signal", "domain", "norm", "snr", "random", "none"] = "signal"
    score: Literal["share", "relative"] = "share"
    fraction: float = 0.5
    threshold: float | Literal["mean"] | None = None
    unit: Literal["linear", "block"] = "linear"
    batches: int = 32
    warmup_steps: int = 50
    warmup_lr: float = 1e-3
    file: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        choices = {
            "bias": ("signal", "domain", "norm", "snr", "random", "none"),
            "score": ("share", "relative"),
            "unit": ("linear", "block"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"method.mask.{name}={getattr(self, name)} is unknown",
                    f"choose one of {', '.join(known)}",
                )
        if not 0 < self.fraction <= 1:
            raise InputError(
                f"method.mask.fraction={self.fraction} is no share of the layers",
                "give a number above 0 and at most 1",
            )
        if isinstance(self.threshold, str) and self.threshold != "mean":
            raise InputError(
                f"method.mask.threshold={self.threshold} is no threshold",
                "give a number, mean, or null for a fraction",
            )
        if self.batches < 2 or self.warmup_steps < 0 or self.warmup_lr <= 0:
            raise InputError(
                f"method.mask.batches={self.batches}, "
                f"method.mask.warmup_steps={self.warmup_steps} or "
                f"method.mask.warmup_lr={self.warmup_lr} is out of range",
                "give at least 2 batches, at least 0 steps and a learning rate above 0",
            )

    @property
    def measures(self) -> bool:
        """Whether the choice needs gradients."""
        return self.file is None and self.bias not in ("random", "none")


class Layer(NamedTuple):
    """A candidate layer, its score, and whether it learns; moments are None where none were measured."""

    name: str
    score: float
    kept: bool
    bias: float | None = None
    variance: float | None = None


@dataclass(frozen=True)
class LayerMask:
    """Which layers learn, and why."""

    settings: Mapping[str, Any]
    layers: tuple[Layer, ...]

    @property
    def kept(self) -> list[str]:
        """Names of the layers that learn."""
        return [layer.name for layer in self.layers if layer.kept]

    def text(self) -> str:
        """As JSON."""
        return (
            json.dumps(
                {
                    "format": FORMAT,
                    "settings": dict(self.settings),
                    "layers": [layer._asdict() for layer in self.layers],
                },
                indent=1,
            )
            + "\n"
        )


@dataclass
class MaskHistory:
    """Which units (layer and artifact subspace) were active from which optimizer step on."""

    units: list[str]
    steps: list[int] = field(default_factory=list)
    active: list[list[bool]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)

    def text(self) -> str:
        """As JSON."""
        return json.dumps({"format": FORMAT} | asdict(self)) + "\n"


def read(path: Path, names: Sequence[str]) -> LayerMask:
    """A mask that a run wrote.

    Raises:
        InputError: no such file, or it is about other layers than `names`.
    """
    try:
        content = json.loads(path.expanduser().read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(
                f"The mask {path} has format {content['format']}",
                f"this version reads format {FORMAT}",
            )
        layers = tuple(Layer(**layer) for layer in content["layers"])
    except FileNotFoundError as error:
        raise InputError(
            f"There is no mask {path}", "give the mask.json of a run in method.mask.file=PATH"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the mask.json of a run with method=fmsd",
            "correct method.mask.file=PATH",
        ) from error
    if {layer.name for layer in layers} != set(names):
        other = min({layer.name for layer in layers} ^ set(names))
        raise InputError(
            f"The mask {path} is about other layers than this backbone's candidates (only one of "
            f"them has {other!r})",
            "choose the backbone and method.patterns it was made with",
        )
    return LayerMask(content["settings"], layers)


def moments(
    weights: Mapping[str, nn.Parameter], losses: Losses, entrywise: bool = False
) -> dict[str, Moments]:
    """Gradient moments of each weight over the losses, streaming.

    One accumulator per weight is kept; a gradient is added to it and freed as soon as the backward
    pass has made it, so that no second layer's gradient lies beside it.

    Args:
        entrywise: measure `snr`, too, which takes a second accumulator per weight.
    """
    sums = _accumulate(weights, losses, entrywise)
    count, found = sums.batches, {}
    for name, weight in weights.items():
        norm = _squared(sums.gradients[name]) / count**2
        variance = max(sums.energies[name] - count * norm, 0.0) / (count - 1)
        snr = _snr(sums.gradients[name], sums.squares[name], count) if entrywise else 0.0
        found[name] = Moments(
            max(norm - variance / count, 0.0), variance, norm, _squared(weight), snr, weight.numel()
        )
    return _finite(found)


def _snr(gradients: Tensor, squares: Tensor, count: int) -> float:
    """The sum over the entries of mean^2 / variance; an entry that never has a gradient counts 0.

    A variance is at least the rounding of what it is computed from: the ratio of a gradient that is
    always the same is large, not infinite.
    """
    mean, energy = (gradients / count).square_(), squares / count
    variance = torch.maximum(energy - mean, torch.finfo(energy.dtype).eps * energy).mul_(
        count / (count - 1)
    )
    return torch.where(variance > 0, mean / variance, 0.0).sum().item()


def domain_moments(
    weights: Mapping[str, nn.Parameter], losses: Mapping[str, Losses]
) -> dict[str, Moments]:
    """Gradient moments between and within domains: bias is the mean over domains of ||gbar_d - gbar||^2, variance the mean variance within one.

    Domains are measured one after the other, so two accumulators per weight suffice whatever their
    number. The bias contains the noise of the gbar_d, a fixed share of the variance; a layer's rank
    by `share` does not depend on it.
    """
    total = {
        name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()
    }
    norms, variances = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0.0)
    for own in losses.values():
        sums = _accumulate(weights, own)
        count = sums.batches
        for name in weights:
            norm = _squared(sums.gradients[name]) / count**2
            norms[name] += norm / len(losses)
            variances[name] += (
                max(sums.energies[name] - count * norm, 0.0) / (count - 1) / len(losses)
            )
            total[name] += sums.gradients.pop(name).div_(count * len(losses))
    joint = {name: _squared(total[name]) for name in weights}
    found = {}
    for name, weight in weights.items():
        found[name] = Moments(
            max(norms[name] - joint[name], 0.0),
            variances[name],
            joint[name],
            _squared(weight),
            entries=weight.numel(),
        )
    return _finite(found)


def choose(
    masking: Masking, names: Sequence[str], measured: Mapping[str, Moments] | None = None
) -> LayerMask:
    """Scores the candidate layers and keeps some of them; with `unit=block` the moments of a block are the sums of its layers'.

    Raises:
        InputError: a threshold that no layer passes, or with `score=relative` a layer of zeros.
    """
    units = {name: block(name) if masking.unit == "block" else name for name in names}
    order = list(dict.fromkeys(units.values()))
    if masking.bias == "none":
        scores = dict.fromkeys(order, 1.0)
    elif masking.bias == "random":
        scores = dict(
            zip(
                order,
                torch.rand(
                    len(order), generator=torch.Generator().manual_seed(masking.seed)
                ).tolist(),
                strict=True,
            )
        )
    else:
        assert measured is not None
        parts = {unit: [measured[name] for name in names if units[name] == unit] for unit in order}
        joint = {
            unit: Moments(*(sum(values) for values in zip(*own, strict=True)))
            for unit, own in parts.items()
        }
        _check_relative(masking, joint)
        scores = {unit: score(masking, own) for unit, own in joint.items()}
    kept = set(order) if masking.bias == "none" else _passing(masking, scores)
    layers = []
    for name in names:
        own = None if measured is None else measured[name]
        layers.append(
            Layer(
                name,
                scores[units[name]],
                units[name] in kept,
                own and own.bias,
                own and own.variance,
            )
        )
    return LayerMask(asdict(masking), tuple(layers))


def score(masking: Masking, own: Moments) -> float:
    """A unit's score from its moments."""
    if masking.bias == "norm":
        return own.norm
    if masking.bias == "snr":
        return own.snr / own.entries
    if masking.score == "relative":
        return own.bias / own.size
    return own.bias / (own.bias + own.variance) if own.bias else 0.0


def _check_relative(masking: Masking, units: Mapping[str, Moments]) -> None:
    if masking.bias in ("norm", "snr") or masking.score != "relative":
        return
    if zeros := [unit for unit, own in units.items() if not own.size]:
        raise InputError(
            f"The weights of {zeros[0]!r} are all zero, so method.mask.score=relative has nothing "
            "to compare its gradient with",
            f"choose share, or add '!{zeros[0]}' to method.patterns",
        )


def block(name: str) -> str:
    """The block a layer lies in: its name up to the last number that is followed by something."""
    found = re.match(r"(.*\b\d+)\.", name)
    return found[1] if found else name


def _passing(masking: Masking, scores: Mapping[str, float]) -> set[str]:
    sign = -1.0 if masking.bias == "domain" else 1.0
    if masking.threshold is None:
        ranked = sorted(scores, key=lambda unit: -sign * scores[unit])
        return set(ranked[: ceil_share(masking.fraction, len(ranked))])
    least = (
        sum(scores.values()) / len(scores)
        if masking.threshold == "mean"
        else float(masking.threshold)
    )
    passing = {unit for unit, value in scores.items() if sign * value >= sign * least}
    if not passing:
        low, high = min(scores.values()), max(scores.values())
        raise InputError(
            f"No layer passes method.mask.threshold={masking.threshold}",
            f"the scores lie between {low:.3g} and {high:.3g}",
        )
    return passing


def _accumulate(
    weights: Mapping[str, nn.Parameter], losses: Losses, entrywise: bool = False
) -> Sums:
    """Sums over the losses; those of squared entries only where they are asked for."""
    sums = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    squares = {name: torch.zeros_like(total) for name, total in sums.items()} if entrywise else {}
    norms: dict[str, list[Tensor]] = {name: [] for name in weights}

    def gather(name: str) -> Callable[[Tensor], None]:
        def hook(weight: Tensor) -> None:
            assert weight.grad is not None
            sums[name].add_(weight.grad)
            if entrywise:
                squares[name].addcmul_(weight.grad, weight.grad)
            norms[name].append(torch.linalg.vector_norm(weight.grad, dtype=torch.float32))
            weight.grad = None

        return hook

    handles = [
        weight.register_post_accumulate_grad_hook(gather(name)) for name, weight in weights.items()
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
    if silent := [name for name, own in norms.items() if not own]:
        raise InputError(
            f"No gradient reaches the layer {silent[0]!r}", f"add '!{silent[0]}' to method.patterns"
        )
    energies = {
        name: torch.stack(own).cpu().double().square().sum().item() for name, own in norms.items()
    }
    return Sums(sums, squares, energies, count)


def _squared(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(tensor.detach(), dtype=torch.float32).item() ** 2


def _finite(found: dict[str, Moments]) -> dict[str, Moments]:
    for name, own in found.items():
        if not all(math.isfinite(value) for value in own):
            raise InputError(
                f"The gradients of {name!r} are not finite, so no layer can be chosen",
                "lower method.mask.warmup_lr, or check the weights",
            )
    return found
