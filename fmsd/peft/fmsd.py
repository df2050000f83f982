"""FMSD: pretrained weights as one frozen semantic subspace and several learnable artifact subspaces.

"Forgery-aware Layer Masking and Multi-Artifact Subspace Decomposition", arXiv 2601.01041 v2/v3 (v1: MASM).

The paper says: decompose weights by SVD into one semantic subspace (frozen) and multiple learnable artifact subspaces, held apart by
orthogonality and spectral-consistency constraints. Our reading: the K * m smallest singular directions of every matrix are set free,
direction j belongs to subspace j mod K, and each of a fused q, k, v is a matrix of its own.

Effort (Yan et al., ICML 2025, arXiv 2411.15633) is the case of one subspace with one direction and no penalties.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from fmsd.models.detector import Detector
from fmsd.peft.inject import Penalties, inject, slices
from fmsd.peft.penalties import named
from fmsd.peft.probe import probe
from fmsd.peft.subspace import Allotment, SubspaceLinear
from fmsd.types import InputError


def fmsd(
    detector: Detector,
    patterns: Sequence[str],
    subspaces: int,
    directions: int,
    allotment: Allotment = "interleave",
    penalties: Mapping[str, float] | None = None,
) -> Penalties:
    """Frees `subspaces` x `directions` singular directions of every matching layer, and the head; the rest is frozen.

    Args:
        patterns: shell-style patterns of layer names in timm's keys, e.g. `*attn.qkv`.
        subspaces: number K of artifact subspaces per matrix.
        directions: number m of singular directions per subspace.
        allotment: direction j belongs to subspace j mod K (`interleave`) or j div m (`contiguous`).
        penalties: weight per penalty name; see `fmsd.peft.penalties`. A weight of 0 leaves the penalty out.

    Raises:
        InputError: no layer matches, a matrix has too few directions, or a penalty is unknown.
    """
    chosen = named(penalties or {})
    if subspaces < 1 or directions < 1:
        raise InputError(f"method.subspaces and method.directions must be at least 1, not {subspaces} and {directions}.")
    probe(detector)
    head = detector.head()

    def replace(name: str, linear: nn.Linear) -> nn.Module:
        if linear is head:
            return linear
        parts, rank = slices(name), subspaces * directions
        if linear.out_features % parts or rank >= min(linear.out_features // parts, linear.in_features):
            raise InputError(
                f"The layer {name!r} ({linear.out_features} x {linear.in_features}, {parts} matrices) cannot give {rank} directions; "
                "lower method.subspaces or method.directions, or leave it out of method.patterns."
            )
        return SubspaceLinear(linear, parts, subspaces, directions, allotment)

    inject(detector.backbone, patterns, replace)
    return chosen
