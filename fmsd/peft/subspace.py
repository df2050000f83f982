"""A linear layer split at its spectrum's tail: a frozen semantic part plus learnable artifact subspaces.

    W = W_sem + sum_k U_k diag(s_k) V_k^T        exact at initialisation

The forward pass stays factored, y = x W_sem^T + b + ((x V) * s) U^T, so no gradient of the size of W is ever formed.
The decomposition is that of FMSD (arXiv 2601.01041) and, with one direction, of Effort (arXiv 2411.15633).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.linalg import split_spectrum

Allotment = Literal["interleave", "contiguous"]


class SubspaceLinear(nn.Module):
    """A linear layer whose smallest singular directions are trainable and whose rest is frozen.

    A layer that stacks several matrices (a fused q, k, v) is decomposed slice by slice. All slices' factors are kept in one tensor
    each: `u` (slices, out, rank), `s` (slices, rank), `v` (slices, rank, in) with rank = subspaces * directions; subspace k owns
    `directions` consecutive columns from k * directions on. `u0`, `s0`, `v0` are their initial values.

    Some backbones (BEiT, EVA, Swin v2) never call the layer but read its `weight`: it is the effective matrix, with gradients.

    Args:
        linear: the pretrained layer.
        parts: number of matrices stacked along the output.
    """

    semantic: Tensor
    u0: Tensor
    s0: Tensor
    v0: Tensor
    u_semantic: Tensor | None
    v_semantic: Tensor | None

    def __init__(self, linear: nn.Linear, parts: int, subspaces: int, directions: int, allotment: Allotment = "interleave") -> None:
        super().__init__()
        self.in_features, self.out_features, self.parts = linear.in_features, linear.out_features, parts
        self.subspaces, self.directions = subspaces, directions
        rank = subspaces * directions
        spectra = [split_spectrum(part, rank) for part in linear.weight.detach().chunk(parts)]
        order = torch.arange(rank)
        if allotment == "interleave":
            order = order.view(directions, subspaces).T.flatten()
        u = torch.stack([spectrum.tail.u[:, order] for spectrum in spectra])
        s = torch.stack([spectrum.tail.s[order] for spectrum in spectra])
        v = torch.stack([spectrum.tail.vt[order] for spectrum in spectra])
        self.register_buffer("semantic", torch.cat([spectrum.head for spectrum in spectra]))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
        self.u, self.s, self.v = nn.Parameter(u), nn.Parameter(s), nn.Parameter(v)
        for name, initial in (("u0", u), ("s0", s), ("v0", v)):
            self.register_buffer(name, initial.clone())
        self.register_buffer("u_semantic", self._semantic_basis(long=u.shape[1] > v.shape[2]))
        self.register_buffer("v_semantic", self._semantic_basis(long=v.shape[2] > u.shape[1], transpose=True))

    def _semantic_basis(self, long: bool, transpose: bool = False) -> Float[Tensor, "parts size kept"] | None:
        """Orthonormal basis of the semantic part on the longer side of a rectangular matrix, where the complement of the tail is not it."""
        if not long:
            return None
        matrices = self.semantic.to(self.u0.dtype).view(self.parts, -1, self.in_features)
        u, _, _ = torch.linalg.svd(matrices.mT if transpose else matrices, full_matrices=False)
        return u[..., : u.shape[-1] - self.s.shape[1]].contiguous()

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The effective matrix."""
        tail = (self.u * self.s[:, None]) @ self.v
        return self.semantic + tail.view(self.out_features, self.in_features)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Equals `functional.linear(x, self.weight, self.bias)` without forming the weight."""
        code = functional.linear(x, self.v.flatten(0, 1)) * self.s.flatten()
        if self.parts == 1:
            update = functional.linear(code, self.u[0])
        else:
            update = torch.einsum("...pr,por->...po", code.unflatten(-1, (self.parts, -1)), self.u).flatten(-2)
        return functional.linear(x, self.semantic, self.bias) + update

    def no_weight_decay(self) -> set[str]:
        """Decay would pull the factors towards zero, away from the pretrained weight: they get none."""
        return {"u", "s", "v"}

    def fold(self) -> nn.Linear:
        """The plain linear layer with the effective weight."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, self.semantic.device, self.semantic.dtype)
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear

    def extra_repr(self) -> str:
        """The numbers that `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, parts={self.parts}, subspaces={self.subspaces}, directions={self.directions}"
