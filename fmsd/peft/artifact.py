"""Artifact subspaces: the trainable factors of a decomposed layer (FMSD, arXiv 2601.01041)."""

from typing import cast

import torch
from torch import Tensor, nn

from fmsd.linalg import Factors


class Artifact(nn.Module):
    """Artifact subspaces of one layer: trainable factors u, s, v, initially u0, s0, v0.

    u is (parts, out, rank), s (parts, rank), v (parts, rank, in); `parts` is the number of matrices
    that the layer stacks, as a fused q, k, v does.
    """

    u0: Tensor
    s0: Tensor
    v0: Tensor
    u: nn.Parameter
    s: nn.Parameter
    v: nn.Parameter

    def __init__(self, initial: Factors) -> None:
        super().__init__()
        for name, factor in zip(("u", "s", "v"), initial, strict=True):
            self.register_parameter(name, nn.Parameter(factor.clone()))
            self.register_buffer(f"{name}0", factor.clone())

    def no_weight_decay(self) -> set[str]:
        """All factors: decay would pull them to zero, away from the pretrained weight."""
        return {"u", "s", "v"}

    def relative_gradients(self) -> list[Tensor]:
        """The gradient of each factor in units of its length, direction by direction.

        These are the derivatives along relative changes of u, s and v: they do not depend on how
        the length of u s v^T is divided among the three.
        """
        lengths = {
            "u": self.u.norm(dim=-2, keepdim=True),
            "s": self.s,
            "v": self.v.norm(dim=-1, keepdim=True),
        }
        return [cast(Tensor, getattr(self, name).grad) * length for name, length in lengths.items()]


class HardArtifact(nn.Module):
    """Artifact subspaces confined to the tail: U_tail C V^T with trainable coefficients C.

    U_tail and V are frozen singular directions. c is (parts, tail, rank): its columns belong to
    this module's directions, its rows to all free directions of the layer.

    Args:
        initial: this module's directions.
        start: index of the first of them among the layer's free directions.
        tail: number of free directions of the layer.
    """

    u0: Tensor
    s0: Tensor
    v0: Tensor

    def __init__(self, initial: Factors, start: int, tail: int) -> None:
        super().__init__()
        for name, factor in zip(("u0", "s0", "v0"), initial, strict=True):
            self.register_buffer(name, factor.clone())
        rank = initial.s.shape[-1]
        c = initial.s.new_zeros(*initial.s.shape[:-1], tail, rank)
        c[..., start : start + rank, :] = torch.diag_embed(initial.s)
        self.c = nn.Parameter(c)

    def no_weight_decay(self) -> set[str]:
        """The coefficients, for the reason given at `Artifact.no_weight_decay`."""
        return {"c"}

    def relative_gradients(self) -> list[Tensor]:
        """The gradient of the coefficients, the gradient of W between unit directions."""
        return [cast(Tensor, self.c.grad)]
