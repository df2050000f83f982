"""FMSD: forgery-aware layer masking, then one frozen semantic subspace and several learnable artifact subspaces per matrix.

"Forgery-aware Layer Masking and Multi-Artifact Subspace Decomposition", arXiv 2601.01041 v2/v3.

The paper says: evaluate the bias and variance of layer-wise gradients to select forgery-sensitive
layers; decompose the selected layers' weights by SVD into one semantic subspace (frozen) and
multiple learnable artifact subspaces, held apart by orthogonality and spectral-consistency
constraints. Our reading: the head is trained alone for a while, gradients are measured without a
step (see `fmsd.peft.mask`) and the head is put back; the K * m smallest singular directions of
every chosen matrix are set free at a working scale (see `fmsd.peft.subspace`), direction j belongs
to subspace j mod K, and each of a fused q, k, v is a matrix of its own.

Effort (Yan et al., ICML 2025, arXiv 2411.15633) is the case of one subspace with one direction at
its own scale, no mask and no penalties.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, cast

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.linalg import Split
from fmsd.models.detector import Detector
from fmsd.peft.inject import Matrix, inject, select_layers, stack_size
from fmsd.peft.mask import (
    LayerMask,
    Masking,
    choose_layers,
    domain_moments,
    gradient_moments,
    read_mask,
)
from fmsd.peft.method import Adaptation, Batches, Penalties
from fmsd.peft.penalties import WEIGHTS, select_penalties
from fmsd.peft.probe import probe
from fmsd.peft.subspace import Allotment, SubspaceLinear
from fmsd.types import Frames

log = logging.getLogger(__name__)

Constraint = Literal["soft", "hard"]

COEFFICIENTS = 32
"""Free directions of a matrix under the hard constraint, where nothing else is asked for."""


def fmsd(
    detector: Detector,
    batches: Batches | None = None,
    *,
    patterns: Sequence[str],
    subspaces: int,
    directions: int | None = None,
    allotment: Allotment = "interleave",
    split: Split = "tail",
    constraint: Constraint = "soft",
    working_scale: bool = True,
    penalties: Mapping[str, float] | None = WEIGHTS,
    mask: Masking | None = None,
) -> Adaptation:
    """Frees `subspaces` x `directions` singular directions of every chosen layer, and the head; the rest is frozen.

    Args:
        batches: training batches, for a mask that measures gradients.
        patterns: candidate layers, see `fmsd.peft.inject.select_layers`.
        subspaces: number K of artifact subspaces per matrix.
        directions: number m of singular directions per subspace; None for 1 or, under the hard
            constraint, for as many as give 32 in all.
        allotment: direction j belongs to subspace j mod K (`interleave`) or j div m (`contiguous`).
        split: the smallest (`tail`), the largest (`top`) or `random` directions are set free.
        constraint: `soft` leaves orthogonality to the penalties; `hard` learns the coefficients C
            of U_tail C V_tail^T between the free directions, which are thus orthogonal to the
            semantic part and to each other by construction.
        working_scale: start the weights s of the directions at no less than the matrix's median
            singular value; False starts them at their singular values, as Effort does.
        penalties: weight per penalty name; see `fmsd.peft.penalties`. A weight of 0 leaves the
            penalty out; None all of them.
        mask: how the layers are chosen; None keeps all candidates.

    Raises:
        InputError: no layer matches, a matrix has too few directions, or a choice is unknown.
    """
    chosen = active_penalties(penalties or {}, constraint)
    probe(detector)
    directions = directions_per_subspace(subspaces, directions, constraint)
    layers = candidate_layers(detector, patterns, subspaces, directions)
    masked = None if mask is None else compute_mask(detector, batches, layers, mask)
    names = list(layers) if masked is None else masked.kept
    inject_subspaces(
        detector,
        names,
        subspaces,
        directions,
        allotment,
        split,
        constraint,
        working_scale,
        "orthogonality" in chosen,
        apart=False,
    )
    return Adaptation(chosen, masked)


def active_penalties(penalties: Mapping[str, float], constraint: Constraint) -> Penalties:
    """The penalties that act: under the hard constraint orthogonality holds by itself.

    Raises:
        InputError: an unknown penalty or constraint.
    """
    if constraint not in ("soft", "hard"):
        raise InputError(f"method.constraint={constraint} is unknown", "choose soft or hard")
    chosen = dict(select_penalties(penalties))
    if constraint == "hard" and (
        idle := [name for name in ("redundancy", "orthogonality") if chosen.pop(name, None)]
    ):
        log.info(
            "The hard constraint keeps the directions orthogonal, so these penalties are left "
            "out: %s.",
            ", ".join(idle),
        )
    return chosen


def directions_per_subspace(subspaces: int, directions: int | None, constraint: Constraint) -> int:
    """The number of directions of a subspace.

    Raises:
        InputError: a number is out of range.
    """
    for name, value in {"subspaces": subspaces, "directions": directions}.items():
        if value is not None and value < 1:
            raise InputError(f"method.{name}={value} is out of range", "give at least 1")
    if directions is not None:
        return directions
    return math.ceil(COEFFICIENTS / subspaces) if constraint == "hard" else 1


def candidate_layers(
    detector: Detector, patterns: Sequence[str], subspaces: int, directions: int
) -> dict[str, Matrix]:
    """The layers that can be decomposed.

    Raises:
        InputError: no layer matches, or a matrix has too few directions.
    """
    layers, rank = select_layers(detector, patterns), subspaces * directions
    for name, layer in layers.items():
        rows, columns = layer.weight.shape[0], layer.weight.shape[1]
        parts = stack_size(name)
        if rows % parts or rank >= min(rows // parts, columns):
            raise InputError(
                f"The layer {name!r} ({rows} x {columns}, {parts} "
                f"{'matrix' if parts == 1 else 'matrices'}) cannot give {rank} directions",
                f"lower method.subspaces or method.directions, or add '!{name}' to method.patterns",
            )
    return layers


def inject_subspaces(
    detector: Detector,
    names: Sequence[str],
    subspaces: int,
    directions: int,
    allotment: Allotment,
    split: Split,
    constraint: Constraint,
    working_scale: bool,
    based: bool,
    apart: bool,
) -> None:
    """Puts decomposed layers in the place of the named ones; see `fmsd.peft.subspace.SubspaceLinear`.

    Raises:
        InputError: an unknown allotment or split.
    """
    if allotment not in ("interleave", "contiguous") or split not in ("tail", "top", "random"):
        raise InputError(
            f"method.allotment={allotment} or method.split={split} is unknown",
            "choose interleave or contiguous, and one of tail, top, random",
        )

    def replace(name: str, layer: Matrix) -> nn.Module:
        return SubspaceLinear(
            layer,
            stack_size(name),
            subspaces,
            directions,
            allotment,
            split,
            working_scale,
            apart,
            based,
            constraint == "hard",
        )

    for name in track(names, "Decomposing layers", transient=True):
        inject(detector.backbone, [name], replace)


def compute_mask(
    detector: Detector, batches: Batches | None, layers: Mapping[str, Matrix], mask: Masking
) -> LayerMask:
    """Chooses layers by `mask`: trains the head alone, then measures the gradients of every candidate without a step.

    Raises:
        InputError: there is no data to measure on, or too little, or the mask's file is about other
            layers.
    """
    begun = None if batches is None else batches.mask
    if mask.file is not None or begun is not None:
        chosen = read_mask(begun or Path(cast(str, mask.file)), list(layers))
    elif not mask.measures:
        chosen = choose_layers(mask, list(layers))
    elif batches is None:
        raise InputError(
            f"method.mask.bias={mask.bias} measures gradients, which needs training batches",
            "give some, or set method.mask.bias=none",
        )
    else:
        detector.eval()  # dropout off; batch norms as pretrained
        head = copy.deepcopy(detector.head().state_dict())
        warm_up_head(detector, batches, mask)
        weights = {name: cast(nn.Parameter, layer.weight) for name, layer in layers.items()}
        detector.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        if mask.bias == "domain":
            if len(batches.domains) < 2:
                raise InputError(
                    "method.mask.bias=domain compares forgery domains, and the training data has "
                    f"{len(batches.domains)}",
                    "choose signal",
                )
            share = max(2, mask.batches // len(batches.domains))
            parts = {
                domain: batch_losses(detector, batches, share, f"Measuring {domain}", domain)
                for domain in batches.domains
            }
            measured = domain_moments(weights, parts)
        else:
            measured = gradient_moments(
                weights,
                batch_losses(detector, batches, mask.batches, "Measuring layers"),
                entrywise=mask.bias == "snr",
            )
        detector.head().load_state_dict(head)  # training begins as it does with any other mask
        probe(detector)
        detector.train()
        chosen = batches.agreed(choose_layers(mask, list(layers), measured))
    log.info(
        "The layer mask keeps %d of %d candidate layers.", len(chosen.kept), len(chosen.layers)
    )
    return chosen


def warm_up_head(detector: Detector, batches: Batches, mask: Masking) -> None:
    """Trains the head alone, so that the gradients measured next come from a detector that already looks for forgeries."""
    optimizer = torch.optim.AdamW(detector.head().parameters(), lr=mask.warmup_lr)
    for loss in batch_losses(detector, batches, mask.warmup_steps, "Warming up the head"):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()


def batch_losses(
    detector: Detector, batches: Batches, count: int, title: str, domain: str | None = None
) -> Iterator[Callable[[], Tensor]]:
    """The classification loss of each batch, with a progress bar."""

    def loss(batch: Frames) -> Tensor:
        with batches.precision():
            logits = detector(batch.image)
        return functional.binary_cross_entropy_with_logits(logits.float(), batch.label.float())

    for batch in track(batches.draw(count, domain), title, count, transient=True):
        yield partial(loss, batch)
