"""Forgery-aware layer masking: scores of layers, and the choice of those to train (FMSD).

The paper (arXiv 2601.01041 v2/v3) says: the masking "evaluates the bias-variance characteristics of
layer-wise gradients to identify forgery-sensitive layers". The scores are our reading; see
`fmsd.peft.gradient_moments` for the statistics they are computed from.

Auto-SNR (Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts", ICLR 2023,
arXiv 2210.11466) is offered beside them: the mean over a layer's entries of (E g)^2 / Var g, from
the plain sample mean and variance. The mean is not corrected for its own variance, so without any
signal the score is about 1 / B, for every layer alike.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired

import torch
from typing_extensions import TypedDict

from fmsd.checks import check_choice
from fmsd.errors import InputError
from fmsd.json_records import Count, Number, check_record, read_record
from fmsd.paths import expand_home
from fmsd.peft.gradient_moments import Moments
from fmsd.rounding import ceil_share

MASK_FORMAT = 1
"""Version of the file format of a mask."""


@dataclass(frozen=True)
class Masking:
    """Settings of the layer mask.

    Args:
        bias: `signal` scores a layer by Sig / (Sig + Var), in [0, 1] and free of layer size;
            `domain` by the same share of how much the forgery domains disagree, of which the *low*
            scores are kept, as a high one marks what is specific to a forgery; `norm` by
            ||gbar||^2; `snr` by the mean over the entries of gbar^2 / Var; `random` by chance;
            `none` keeps every layer and needs no data.
        fraction: share of the layers to keep, rounded up, in (0, 1].
        threshold: keep the layers with scores at or above this number, or above the `mean` score,
            instead of a fraction; with `domain`, at or below.
        unit: choose single linear layers, or whole blocks.
        batches: number B of micro-batches, at least 2.
        warmup_steps: optimizer steps of the head alone before gradients are measured.
        warmup_lr: AdamW's learning rate in these steps.
        file: the `mask.json` of another run, to choose the same layers without measuring.
        seed: seed of the random choice.
    """

    bias: Literal["signal", "domain", "norm", "snr", "random", "none"] = "signal"
    fraction: float = 0.5
    threshold: float | Literal["mean"] | None = None
    unit: Literal["linear", "block"] = "linear"
    batches: int = 32
    warmup_steps: int = 50
    warmup_lr: float = 1e-3
    file: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values."""
        scores = ("signal", "domain", "norm", "snr", "random", "none")
        check_choice("method.mask.bias", self.bias, scores)
        check_choice("method.mask.unit", self.unit, ("linear", "block"))
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


class ScoredLayer(NamedTuple):
    """A candidate layer, its score, whether it is kept, and its moments if they were measured."""

    name: str
    score: float
    kept: bool
    bias: float | None = None
    variance: float | None = None


@dataclass(frozen=True)
class LayerMask:
    """The candidate layers with their scores, and the settings that chose among them."""

    settings: Mapping[str, Any]
    layers: tuple[ScoredLayer, ...]

    @property
    def kept_names(self) -> list[str]:
        """Names of the layers to train."""
        return [layer.name for layer in self.layers if layer.kept]

    def text(self) -> str:
        """The mask as JSON, the content of `mask.json`."""
        content = {
            "format": MASK_FORMAT,
            "settings": dict(self.settings),
            "layers": [layer._asdict() for layer in self.layers],
        }
        return json.dumps(content, indent=1) + "\n"


@dataclass
class MaskHistory:
    """The masks of a training: which units (layer and artifact subspace) each made active.

    Args:
        units: names of the units.
        steps: optimizer steps after which the masks began.
        active: per mask, whether each unit was active.
        scores: per mask, the score of each unit.
    """

    units: list[str]
    steps: list[int] = field(default_factory=list)
    active: list[list[bool]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)

    def text(self) -> str:
        """The history as JSON, the content of `mask.json`."""
        return json.dumps({"format": MASK_FORMAT} | asdict(self)) + "\n"


class LayerRecord(TypedDict):
    """A layer in `mask.json`, see `ScoredLayer`."""

    name: str
    score: Number
    kept: bool
    bias: NotRequired[Number | None]
    variance: NotRequired[Number | None]


class MaskRecord(TypedDict):
    """The keys of `mask.json` that another run reads."""

    format: int
    settings: dict[str, Any]
    layers: list[LayerRecord]


class HistoryRecord(TypedDict):
    """The keys of the `mask.json` of a `MaskHistory`."""

    units: list[str]
    steps: list[Count]
    active: list[list[bool]]
    scores: list[list[Number]]


HISTORY = ("units", "steps", "active", "scores")


def read_mask(path: Path, names: Sequence[str]) -> LayerMask:
    """Reads the mask of another run.

    Args:
        names: the candidate layers of this run.

    Raises:
        InputError: the file is missing or no mask, or its candidate layers differ from `names`.
    """
    file = expand_home(path)
    remedy = "give the mask.json of a run with method=fmsd in method.mask.file=PATH"
    if not os.path.lexists(file):
        raise InputError(f"There is no mask {path}", remedy)
    mask = read_any_mask(file, remedy)
    if isinstance(mask, MaskHistory):
        raise InputError(f"{path} holds the history of artifact subspaces, no layer mask", remedy)
    layers = mask.layers
    if {layer.name for layer in layers} != set(names):
        other = min({layer.name for layer in layers} ^ set(names))
        raise InputError(
            f"The mask {path} is about other layers than this backbone's candidates (only one of "
            f"them has {other!r})",
            "choose the backbone and method.patterns it was made with",
        )
    return mask


def read_any_mask(path: Path, remedy: str) -> LayerMask | MaskHistory:
    """Reads a `mask.json`, whichever method wrote it.

    Args:
        remedy: what to do about a damaged one.

    Raises:
        InputError: it is damaged, or of another version.
    """
    content = read_record(path, dict[str, Any], remedy)
    if content.get("format", MASK_FORMAT) != MASK_FORMAT:
        raise InputError(
            f"The mask {path} has format {content['format']!r:.40}",
            f"this version reads format {MASK_FORMAT}",
        )
    if "units" in content:
        check_record(content, HistoryRecord, path, remedy)
        history = MaskHistory(*(content[name] for name in HISTORY))
        rows = [*history.active, *history.scores]
        if not len(history.steps) == len(history.active) == len(history.scores) or any(
            len(row) != len(history.units) for row in rows
        ):
            raise InputError(f"{path} is damaged: its masks are not of all units and steps", remedy)
        return history
    check_record(content, MaskRecord, path, remedy)
    layers = (
        ScoredLayer(**{key: layer[key] for key in ScoredLayer._fields if key in layer})
        for layer in content["layers"]
    )
    return LayerMask(content["settings"], tuple(layers))


def choose_layers(
    masking: Masking, names: Sequence[str], measured: Mapping[str, Moments] | None = None
) -> LayerMask:
    """Scores the candidate layers and keeps some of them.

    Args:
        names: the candidate layers.
        measured: gradient moments of each layer, where the choice needs them. With `unit=block` the
            moments of a block are the sums of its layers'.

    Raises:
        InputError: no layer passes the threshold.
    """
    units = {name: block_name(name) if masking.unit == "block" else name for name in names}
    scores = _unit_scores(masking, units, measured)
    kept = set(scores) if masking.bias == "none" else _kept_units(masking, scores)
    layers = []
    for name in names:
        moments = None if measured is None else measured[name]
        layers.append(
            ScoredLayer(
                name,
                scores[units[name]],
                units[name] in kept,
                moments and moments.bias,
                moments and moments.variance,
            )
        )
    return LayerMask(asdict(masking), tuple(layers))


def _unit_scores(
    masking: Masking, units: Mapping[str, str], measured: Mapping[str, Moments] | None
) -> dict[str, float]:
    """The score of each unit; `units` maps each layer to its unit."""
    order = list(dict.fromkeys(units.values()))
    if masking.bias == "none":
        return dict.fromkeys(order, 1.0)
    if masking.bias == "random":
        generator = torch.Generator().manual_seed(masking.seed)
        return dict(zip(order, torch.rand(len(order), generator=generator).tolist(), strict=True))
    assert measured is not None
    scores = {}
    for unit in order:
        members = [measured[name] for name, owner in units.items() if owner == unit]
        joint = Moments(*(sum(values) for values in zip(*members, strict=True)))
        scores[unit] = layer_score(masking, joint)
    return scores


def layer_score(masking: Masking, moments: Moments) -> float:
    """The score of a layer, or of a block by its summed moments."""
    if masking.bias == "norm":
        return moments.norm
    if masking.bias == "snr":
        return moments.snr / moments.entries
    return moments.bias / (moments.bias + moments.variance) if moments.bias else 0.0


def block_name(layer: str) -> str:
    """The block of a layer: its name up to the last number before another part."""
    found = re.match(r"(.*\b\d+)\.", layer)
    return found[1] if found else layer


def _kept_units(masking: Masking, scores: Mapping[str, float]) -> set[str]:
    """The units with the best scores, or with all scores that pass the threshold."""
    sign = -1.0 if masking.bias == "domain" else 1.0
    if masking.threshold is None:
        ranked = sorted(scores, key=lambda unit: -sign * scores[unit])
        return set(ranked[: ceil_share(masking.fraction, len(ranked))])
    threshold = (
        sum(scores.values()) / len(scores)
        if masking.threshold == "mean"
        else float(masking.threshold)
    )
    kept = {unit for unit, value in scores.items() if sign * value >= sign * threshold}
    if not kept:
        low, high = min(scores.values()), max(scores.values())
        raise InputError(
            f"No layer passes method.mask.threshold={masking.threshold}",
            f"the scores lie between {low:.3g} and {high:.3g}",
        )
    return kept
