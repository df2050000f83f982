"""FMSD: forgery-aware layer masking, then a frozen semantic and several artifact subspaces.

"Forgery-aware Layer Masking and Multi-Artifact Subspace Decomposition", arXiv 2601.01041 v2/v3.

The paper says: evaluate the bias and variance of layer-wise gradients to select forgery-sensitive
layers; decompose the selected layers' weights by SVD into one semantic subspace (frozen) and
multiple learnable artifact subspaces, held apart by orthogonality and spectral-consistency
constraints. Our reading: the head is trained alone for some steps, gradients are measured without a
step (see `fmsd.peft.mask`) and the head is restored; the K * m smallest singular directions of
every chosen matrix become trainable at a working scale (see `fmsd.peft.subspace`), direction j
belongs to subspace j mod K, and q, k and v of a fused layer are decomposed one by one.

Effort (Yan et al., ICML 2025, arXiv 2411.15633) is the special case of one subspace with one
direction at its singular value, no mask and no penalties.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmsd.checks import check_choice, check_range
from fmsd.console import track
from fmsd.errors import InputError
from fmsd.linalg import DirectionSplit
from fmsd.models.detector import Detector
from fmsd.peft.gradient_moments import Moments, domain_moments, gradient_moments
from fmsd.peft.inject import Matrix, check_directions, inject, select_layers, stack_size
from fmsd.peft.mask import LayerMask, Masking, choose_layers, read_mask
from fmsd.peft.method import Adaptation, Batches, Penalties
from fmsd.peft.penalties import WEIGHTS, select_penalties
from fmsd.peft.probe import probe
from fmsd.peft.subspace import Allotment, SubspaceLinear, SubspaceSettings
from fmsd.types import Frames

log = logging.getLogger(__name__)

Constraint = Literal["soft", "hard"]

COEFFICIENTS = 32
"""Default number of trainable directions of a matrix under the hard constraint."""


def fmsd(
    detector: Detector,
    batches: Batches | None = None,
    *,
    patterns: Sequence[str],
    subspaces: int,
    directions: int | None = None,
    allotment: Allotment = "interleave",
    split: DirectionSplit = "tail",
    constraint: Constraint = "soft",
    working_scale: bool = True,
    penalties: Mapping[str, float] | None = WEIGHTS,
    mask: Masking | None = None,
) -> Adaptation:
    """Makes artifact subspaces of the chosen layers and the head trainable, and freezes the rest.

    Args:
        batches: training batches, for a mask that measures gradients.
        patterns: candidate layers, see `fmsd.peft.inject.select_layers`.
        subspaces: number K of artifact subspaces per matrix.
        directions: number m of singular directions per subspace; None for 1 or, under the hard
            constraint, for 32 / K, rounded up.
        allotment: direction j belongs to subspace j mod K (`interleave`) or j div m (`contiguous`).
        split: train the smallest (`tail`), the largest (`top`) or `random` directions.
        constraint: `soft` leaves orthogonality to the penalties; `hard` trains the coefficients C
            of U_tail C V_tail^T between frozen directions, which keeps the update orthogonal to the
            semantic part and the subspaces to each other by construction.
        working_scale: start the weights s of the directions at no less than the matrix's median
            singular value; False starts them at their singular values, as Effort does.
        penalties: weight per penalty name; see `fmsd.peft.penalties`. A weight of 0 leaves a
            penalty out, None all of them.
        mask: how layers are chosen; None trains all candidates.

    Raises:
        InputError: no layer matches, a matrix has too few directions, or an argument is unknown or
            out of range.
    """
    active = active_penalties(penalties or {}, constraint)
    probe(detector)
    settings = SubspaceSettings(
        subspaces=subspaces,
        directions=directions_per_subspace(subspaces, directions, constraint),
        allotment=allotment,
        split=split,
        working_scale=working_scale,
        based="orthogonality" in active,
        hard=constraint == "hard",
    )
    layers = candidate_layers(detector, patterns, settings)
    masked = None if mask is None else compute_mask(detector, batches, layers, mask)
    names = list(layers) if masked is None else masked.kept_names
    inject_subspaces(detector, names, settings)
    return Adaptation(active, masked)


def active_penalties(penalties: Mapping[str, float], constraint: Constraint) -> Penalties:
    """Selects the penalties with an effect: the hard constraint implies orthogonality.

    Raises:
        InputError: an unknown penalty or constraint.
    """
    check_choice("method.constraint", constraint, ("soft", "hard"))
    chosen = dict(select_penalties(penalties))
    implied = ("redundancy", "orthogonality") if constraint == "hard" else ()
    if idle := [name for name in implied if chosen.pop(name, None)]:
        log.info(
            "The hard constraint keeps the directions orthogonal, so these penalties are left "
            "out: %s.",
            ", ".join(idle),
        )
    return chosen


def directions_per_subspace(subspaces: int, directions: int | None, constraint: Constraint) -> int:
    """The number of directions of a subspace, with its default filled in.

    Raises:
        InputError: an argument is out of range.
    """
    check_range("method.subspaces", subspaces, 1)
    check_range("method.directions", directions, 1, null="the default of the constraint")
    if directions is not None:
        return directions
    return math.ceil(COEFFICIENTS / subspaces) if constraint == "hard" else 1


def candidate_layers(
    detector: Detector, patterns: Sequence[str], settings: SubspaceSettings
) -> dict[str, Matrix]:
    """The layers that match the patterns, all with enough singular directions.

    Raises:
        InputError: no layer matches, or a matrix has too few directions.
    """
    layers = select_layers(detector, patterns)
    check_directions(layers, settings.rank, "method.subspaces or method.directions")
    return layers


def inject_subspaces(detector: Detector, names: Sequence[str], settings: SubspaceSettings) -> None:
    """Replaces the named layers by decomposed ones, see `fmsd.peft.subspace.SubspaceLinear`.

    Raises:
        InputError: an unknown allotment or split.
    """
    known_allotment = settings.allotment in ("interleave", "contiguous")
    if not known_allotment or settings.split not in ("tail", "top", "random"):
        raise InputError(
            f"method.allotment={settings.allotment} or method.split={settings.split} is unknown",
            "choose interleave or contiguous, and one of tail, top, random",
        )

    def replace(name: str, layer: Matrix) -> nn.Module:
        return SubspaceLinear(layer, stack_size(name), settings)

    for name in track(names, "Decomposing layers", len(names), "layers"):
        inject(detector.backbone, [name], replace)


def compute_mask(
    detector: Detector, batches: Batches | None, layers: Mapping[str, Matrix], mask: Masking
) -> LayerMask:
    """The layer mask: read from a file, drawn by chance, or measured on training batches.

    Raises:
        InputError: measuring has no data or too little, or the mask's file is about other layers.
    """
    resumed = None if batches is None else batches.mask
    file = mask.file if resumed is None else resumed
    if file is not None:
        chosen = read_mask(Path(file), list(layers))
    elif not mask.measures:
        chosen = choose_layers(mask, list(layers))
    elif batches is None:
        raise InputError(
            f"method.mask.bias={mask.bias} measures gradients, which needs training batches",
            "give some, or set method.mask.bias=none",
        )
    else:
        measured = measure_layers(detector, batches, layers, mask)
        chosen = batches.broadcast(choose_layers(mask, list(layers), measured))
    log.info(
        "The layer mask keeps %d of %d candidate layers.",
        len(chosen.kept_names),
        len(chosen.layers),
    )
    return chosen


def measure_layers(
    detector: Detector, batches: Batches, layers: Mapping[str, Matrix], mask: Masking
) -> dict[str, Moments]:
    """Trains the head alone, then measures the gradients of every layer without a step.

    The head is restored afterwards, so that training begins as with any other mask.

    Raises:
        InputError: there is too little data, or a single forgery domain for bias=domain.
    """
    detector.eval()  # no dropout, pretrained batch norm statistics
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
        count = max(2, mask.batches // len(batches.domains))
        measured = domain_moments(
            weights,
            {
                domain: batch_losses(detector, batches, count, f"Measuring {domain}", domain)
                for domain in batches.domains
            },
        )
    else:
        measured = gradient_moments(
            weights,
            batch_losses(detector, batches, mask.batches, "Measuring layers"),
            entrywise=mask.bias == "snr",
        )
    detector.head().load_state_dict(head)
    probe(detector)
    detector.train()
    return measured


def warm_up_head(detector: Detector, batches: Batches, mask: Masking) -> None:
    """Trains the head alone, so that gradients are measured on a detector that knows the task."""
    optimizer = torch.optim.AdamW(detector.head().parameters(), lr=mask.warmup_lr)
    for loss in batch_losses(detector, batches, mask.warmup_steps, "Warming up the head"):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()


def batch_losses(
    detector: Detector, batches: Batches, count: int, title: str, domain: str | None = None
) -> Iterator[Callable[[], Tensor]]:
    """Yields a closure of the classification loss per batch, with a progress bar."""

    def loss(batch: Frames) -> Tensor:
        with batches.precision():
            logits = detector(batch.image)
        return functional.binary_cross_entropy_with_logits(logits.float(), batch.label.float())

    for batch in track(batches.draw(count, domain), title, count, "batches"):
        yield partial(loss, batch)
