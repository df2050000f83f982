"""A matrix split at its spectrum: a frozen semantic part plus learnable artifact subspaces.

    W = W_sem + sum_k U_k diag(s_k) V_k^T        exact at initialisation

The forward pass stays factored, y = x W_sem^T + b + ((x V) * s) U^T, so no gradient of the size of W is ever formed.
The decomposition is that of FMSD (arXiv 2601.01041) and, with one direction, of Effort (arXiv 2411.15633).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.linalg import Factors, Split, orthonormal, orthonormal_complement, product
from fmsd.peft.decomposition import decompose
from fmsd.peft.inject import Matrix, plain

Allotment = Literal["interleave", "contiguous"]


class Artifact(nn.Module):
    """The factors of artifact subspaces of one layer, and their initial values `u0`, `s0`, `v0`.

    u is (parts, out, rank), s (parts, rank), v (parts, rank, in), where a layer that stacks several matrices (a fused q, k, v) has that
    many parts.

    Attributes:
        rate: of the learning of s, as a multiple of that of u and v.
    """

    u0: Tensor
    s0: Tensor
    v0: Tensor
    u: nn.Parameter
    s: nn.Parameter
    v: nn.Parameter

    def __init__(self, initial: Factors) -> None:
        super().__init__()
        self.rate = 1.0
        for name, factor in zip(("u", "s", "v"), initial, strict=True):
            self.register_parameter(name, nn.Parameter(factor.clone()))
            self.register_buffer(f"{name}0", factor.clone())

    def no_weight_decay(self) -> set[str]:
        """Decay would pull the factors towards zero, away from the pretrained weight: they get none."""
        return {"u", "s", "v"}

    def rates(self) -> dict[str, float]:
        """Which parameters learn at a rate of their own."""
        return {"s": self.rate}


class SubspaceLinear(nn.Module):
    """A linear layer or pointwise convolution with some singular directions trainable and the rest frozen.

    A layer that stacks several matrices is decomposed slice by slice. Subspace k owns `directions` consecutive columns of the factors
    from k * directions on.

    Some backbones (BEiT, EVA, Swin v2) never call the layer but read its `weight`: it is the effective matrix, with gradients.

    Args:
        layer: the pretrained layer.
        parts: number of matrices stacked along the output.
        subspaces: number K of artifact subspaces per matrix.
        directions: number m of singular directions per subspace.
        allotment: direction j belongs to subspace j mod K (`interleave`) or j div m (`contiguous`).
        split: which singular directions are set free.
        apart: keep each subspace's factors as parameters of their own, so that one can rest while another learns.
        based: keep orthonormal bases of the longer side of rectangular matrices, which the orthogonality penalty and the hard
            constraint need; they cost as much memory as the weight.
        hard: keep U and V orthonormal and orthogonal to the semantic part: their gradients are projected, and `retract` follows each
            optimizer step.
        initial: the directions to set free, where they are known already.
    """

    semantic: Tensor
    energy: Tensor
    u_range: Tensor | None
    v_range: Tensor | None

    def __init__(
        self,
        layer: Matrix,
        parts: int,
        subspaces: int,
        directions: int,
        allotment: Allotment = "interleave",
        split: Split = "tail",
        apart: bool = False,
        based: bool = True,
        hard: bool = False,
        initial: Factors | None = None,
    ) -> None:
        super().__init__()
        self.parts, self.subspaces, self.directions = parts, subspaces, directions
        self.allotment, self.split, self.apart, self.based, self.hard = allotment, split, apart, based, hard
        self.stride = cast(tuple[int, int], layer.stride) if isinstance(layer, nn.Conv2d) else None
        matrices = layer.weight.detach().flatten(1).unflatten(0, (parts, -1))
        self.out_features, self.in_features = parts * matrices.shape[1], matrices.shape[2]
        if initial is None:
            order = torch.arange(subspaces * directions)
            if allotment == "interleave":
                order = order.view(directions, subspaces).T.flatten()
            found = [decompose(matrix, subspaces * directions, split) for matrix in matrices]
            initial = Factors(*(torch.stack(factors) for factors in zip(*found, strict=True)))
            initial = Factors(initial.u[..., order], initial.s[..., order], initial.vt[:, order])
        width = directions if apart else subspaces * directions
        columns = [slice(start, start + width) for start in range(0, subspaces * directions, width)]
        self.artifacts = nn.ModuleList(Artifact(Factors(initial.u[..., own], initial.s[..., own], initial.vt[:, own])) for own in columns)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        self.register_buffer("semantic", (matrices - product(initial)).flatten(0, 1).to(layer.weight.dtype), persistent=False)
        whole, (rows, wide) = matrices.to(initial.s.dtype), matrices.shape[1:]
        self.register_buffer("energy", whole.square().sum((1, 2)), persistent=False)
        self.register_buffer("u_range", torch.linalg.qr(whole).Q if based and rows > wide else None, persistent=False)
        self.register_buffer("v_range", torch.linalg.qr(whole.mT).Q if based and wide > rows else None, persistent=False)
        if hard:
            for own in self.units:
                own.u.register_hook(self.allowed_u)
                own.v.register_hook(lambda gradient: self.allowed_v(gradient.mT).mT)

    @property
    def units(self) -> list[Artifact]:
        """The artifact subspaces that are kept apart, or all of them as one."""
        return cast(list[Artifact], list(self.artifacts))

    def describe(self) -> dict[str, Any]:
        """The arguments that, beside the pretrained layer and the initial directions, make this layer."""
        names = ("parts", "subspaces", "directions", "allotment", "split", "apart", "based", "hard")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def rebuild(cls, layer: Matrix, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "SubspaceLinear":
        """The layer that `describe` described, over the same pretrained weight, with the initial directions among `tensors`."""
        count = description["subspaces"] if description["apart"] else 1
        kept = [[tensors[f"artifacts.{k}.{name}"].to(layer.weight.device) for k in range(count)] for name in ("u0", "s0", "v0")]
        initial = Factors(torch.cat(kept[0], -1), torch.cat(kept[1], -1), torch.cat(kept[2], -2))
        return cls(layer, **description, initial=initial)

    @torch.no_grad()
    def rebase(self, before: Factors) -> None:
        """Takes over initial directions that were loaded in the place of `before`: the pretrained matrix stays what it was."""
        if not all(torch.equal(new, old) for new, old in zip(self.initial, before, strict=True)):
            self.semantic += (product(before) - product(self.initial)).flatten(0, 1).to(self.semantic.dtype)

    def _joined(self, name: str, dim: int) -> Tensor:
        factors = [getattr(own, name) for own in self.units]
        return factors[0] if len(factors) == 1 else torch.cat(factors, dim)

    @property
    def u(self) -> Float[Tensor, "parts out rank"]:
        """Left factors of all subspaces."""
        return self._joined("u", -1)

    @property
    def s(self) -> Float[Tensor, "parts rank"]:
        """Weights of the directions."""
        return self._joined("s", -1)

    @property
    def v(self) -> Float[Tensor, "parts rank in"]:
        """Right factors of all subspaces, as rows."""
        return self._joined("v", -2)

    @property
    def initial(self) -> Factors:
        """The factors at the start."""
        return Factors(self._joined("u0", -1), self._joined("s0", -1), self._joined("v0", -2))

    @property
    def weight(self) -> Float[Tensor, "out in *kernel"]:
        """The effective matrix, in the shape of the plain layer's weight."""
        weight = self.semantic + product(Factors(self.u, self.s, self.v)).view_as(self.semantic).to(self.semantic.dtype)
        return weight if self.stride is None else weight[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Equals the plain layer with the effective weight, without forming it. x is (*, in), or (batch, in, height, width) of a convolution."""
        up = torch.block_diag(*self.u.mT) if self.parts > 1 else self.u[0].mT
        down, s = self.v.flatten(0, 1), self.s.flatten()
        if self.stride is not None:
            code = functional.conv2d(x, down[..., None, None], stride=self.stride) * s[:, None, None]
            return functional.conv2d(x, self.semantic[..., None, None], self.bias, self.stride) + functional.conv2d(code, up.mT[..., None, None])
        semantic, bias = self.semantic, self.bias
        if torch.is_autocast_enabled(x.device.type):
            kind = torch.get_autocast_dtype(x.device.type)
            x, semantic, up, s, down = (part.to(kind) for part in (x, semantic, up, s, down))
            bias = None if bias is None else bias.to(kind)
        y = cast(Tensor, _Factored.apply(x.reshape(-1, self.in_features), semantic, bias, up, s, down))
        return y.view(*x.shape[:-1], self.out_features)

    def allowed_u(self, factor: Float[Tensor, "parts size columns"]) -> Float[Tensor, "parts size columns"]:
        """The part of left factors that is orthogonal to the semantic part."""
        return _outside(factor, self.initial.u, self.u_range)

    def allowed_v(self, factor: Float[Tensor, "parts size columns"]) -> Float[Tensor, "parts size columns"]:
        """The part of right factors, as columns, that is orthogonal to the semantic part."""
        return _outside(factor, self.initial.vt.mT, self.v_range)

    def fold(self) -> Matrix:
        """The plain layer with the effective weight."""
        return plain(self.weight, self.bias, self.stride)

    def extra_repr(self) -> str:
        """The numbers that `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, parts={self.parts}, subspaces={self.subspaces}, directions={self.directions}"


class _Factored(torch.autograd.Function):
    """x W_sem^T + b + ((x V) * s) U^T and its gradients, each update added into the large product instead of being made beside it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, semantic: Tensor, bias: Tensor | None, up: Tensor, s: Tensor, down: Tensor) -> Tensor:
        code = x @ down.mT
        y = functional.linear(x, semantic, bias)
        y.addmm_(code * s, up)
        ctx.save_for_backward(x, semantic, up, s, down, code)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, semantic, up, s, down, code = ctx.saved_tensors
        inner = gradient @ up.mT
        weighted = inner * s
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = gradient @ semantic
            for_x.addmm_(weighted, down)
        for_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return for_x, None, for_bias, (code * s).mT @ gradient, (inner * code).sum(0), weighted.mT @ x


def subspace_layers(model: nn.Module) -> Iterator[SubspaceLinear]:
    """Every decomposed layer of a model."""
    return (module for module in model.modules() if isinstance(module, SubspaceLinear))


@torch.no_grad()
def retract(model: nn.Module) -> None:
    """Brings the factors of hard layers back to orthonormal columns outside the semantic part, by the polar factor: the nearest such matrix.

    A subspace whose parameters did not learn in the last step (their `grad` is None) stays as it is, bit for bit; the others make way.
    Layers of one shape are treated in one batch.
    """
    batches: dict[tuple[Any, ...], list[tuple[Tensor, list[Tensor], list[bool]]]] = {}
    for layer in subspace_layers(model):
        if layer.hard:
            resting = [own.u.grad is None for own in layer.units]
            if not all(resting):
                for own_factors, free in (
                    ([own.u for own in layer.units], layer.allowed_u(layer.u)),
                    ([own.v.mT for own in layer.units], layer.allowed_v(layer.v.mT)),
                ):
                    batches.setdefault((free.shape, free.device, *resting), []).append((free, own_factors, resting))  # pyright: ignore
    for group in batches.values():
        resting = group[0][2]
        free = torch.stack([entry[0] for entry in group])
        width = free.shape[-1] // len(resting)
        moving = torch.tensor(resting, device=free.device).repeat_interleave(width).logical_not()
        if any(resting):
            fixed = torch.stack([torch.cat([own for own, rests in zip(entry[1], resting, strict=True) if rests], -1) for entry in group])
            free[..., moving] = orthonormal_complement(fixed, free[..., moving])
        columns = orthonormal(free[..., moving]).split(width, -1)
        active = [place for place, rests in enumerate(resting) if not rests]
        for number, place in enumerate(active):
            for entry, column in zip(group, columns[number], strict=True):
                entry[1][place].copy_(column)


def _outside(factor: Tensor, initial: Tensor, span: Tensor | None) -> Tensor:
    """The part of a factor outside the semantic part.

    On the shorter side of a matrix the semantic part and the initial factors fill the space, so it is the span of these; on the longer
    side it is everything but the semantic part of the matrix's own span.
    """
    if span is None:
        return initial @ (initial.mT @ factor)
    return factor - span @ (span.mT @ orthonormal_complement(initial, factor))
