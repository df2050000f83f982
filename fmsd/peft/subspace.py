"""A matrix split at its spectrum: a frozen semantic part plus trainable artifact subspaces.

    W = W_sem + sum_k U_k diag(s_k) V_k^T        exact at initialisation

The forward pass stays factored, y = x W_sem^T + b + (x V) P^T with P = U diag(s), so no gradient of
the size of W is ever formed. The decomposition is that of FMSD (arXiv 2601.01041) and, with one
direction, of Effort (arXiv 2411.15633).

The gradients of U and V are proportional to s, and the smallest singular values of a pretrained
matrix are close to zero. Our reading of FMSD therefore starts s at no less than a *working scale*,
the matrix's median singular value, and subtracts the difference from W_sem. Effort, as released,
starts s at the singular values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.linalg import DirectionSplit, Factors, dense_product, energy_gain
from fmsd.peft.artifact import Artifact, HardArtifact
from fmsd.peft.inject import Matrix, plain_layer
from fmsd.peft.svd_cache import cached_directions, cached_median_singular_value

Allotment = Literal["interleave", "contiguous"]


@dataclass(frozen=True)
class SubspaceSettings:
    """How many singular directions of a matrix are trainable, which, and in what form.

    Args:
        subspaces: number K of artifact subspaces per matrix.
        directions: number m of singular directions per subspace.
        allotment: direction j belongs to subspace j mod K (`interleave`) or j div m (`contiguous`).
        split: which singular directions are trainable.
        working_scale: start s at no less than the matrix's median singular value.
        apart: keep each subspace's factors as separate parameters, so that a mask can make one
            inactive while another is trained.
        based: keep orthonormal bases of the longer side of rectangular matrices, which the
            orthogonality penalty needs; they cost as much memory as the weight.
        hard: train coefficients between frozen directions, so that the update stays in
            the tail; the working scale has no effect then.
    """

    subspaces: int
    directions: int
    allotment: Allotment = "interleave"
    split: DirectionSplit = "tail"
    working_scale: bool = True
    apart: bool = False
    based: bool = True
    hard: bool = False

    @property
    def rank(self) -> int:
        """The number of trainable directions of a matrix."""
        return self.subspaces * self.directions


class SubspaceLinear(nn.Module):
    """A linear layer or pointwise convolution of which some singular directions are trainable.

    A layer that stacks several matrices is decomposed slice by slice. Subspace k owns `directions`
    consecutive columns of the factors from k * directions on.

    Some backbones (BEiT, EVA, Swin v2) never call the layer but read its `weight`, so that is the
    effective matrix, with gradients.

    Args:
        layer: the pretrained layer.
        parts: number of matrices stacked along the output.
        settings: which singular directions are trainable, and how.
        initial: the trainable directions, if they are known already.
    """

    kind: ClassVar[str] = "subspace"
    semantic: Tensor
    energy: Tensor
    gain: Tensor
    u_range: Tensor | None
    v_range: Tensor | None

    def __init__(
        self,
        layer: Matrix,
        parts: int,
        settings: SubspaceSettings,
        initial: Factors | None = None,
    ) -> None:
        super().__init__()
        self.parts, self.settings = parts, settings
        self.stride = (layer.stride[0], layer.stride[1]) if isinstance(layer, nn.Conv2d) else None
        matrices = layer.weight.detach().flatten(1).unflatten(0, (parts, -1))
        self.out_features, self.in_features = parts * matrices.shape[1], matrices.shape[2]
        if initial is None:
            initial = _initial_factors(matrices, settings)
        width = settings.directions if settings.apart else settings.rank
        self.artifacts = nn.ModuleList()
        for start in range(0, settings.rank, width):
            block = slice(start, start + width)
            factors = Factors(initial.u[..., block], initial.s[..., block], initial.vt[:, block])
            self.artifacts.append(
                HardArtifact(factors, start, settings.rank) if settings.hard else Artifact(factors)
            )
        self.bias = (
            None
            if layer.bias is None
            else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.register_buffer(
            "semantic",
            (matrices - dense_product(initial)).flatten(0, 1).to(layer.weight.dtype),
            persistent=False,
        )
        pretrained, (rows, columns) = matrices.to(initial.s.dtype), matrices.shape[1:]
        self.register_buffer("energy", pretrained.square().sum((1, 2)), persistent=False)
        self.register_buffer("gain", self.initial_gain(), persistent=False)
        self.register_buffer(
            "u_range",
            torch.linalg.qr(pretrained).Q if settings.based and rows > columns else None,
            persistent=False,
        )
        self.register_buffer(
            "v_range",
            torch.linalg.qr(pretrained.mT).Q if settings.based and columns > rows else None,
            persistent=False,
        )

    @property
    def units(self) -> list[Artifact | HardArtifact]:
        """The separate artifact subspaces, or a single module of all of them."""
        return cast(list[Artifact | HardArtifact], list(self.artifacts))

    def describe(self) -> dict[str, Any]:
        """The arguments of `rebuild`, which also needs layer and initial directions."""
        description = {"parts": self.parts, **asdict(self.settings)}
        del description["working_scale"]  # it determines only the initial directions
        return description

    @classmethod
    def rebuild(
        cls, layer: Matrix, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "SubspaceLinear":
        """Builds the layer that `describe` described, over the same pretrained weight.

        The initial directions are taken from `tensors`.
        """
        arguments = dict(description)
        parts, settings = arguments.pop("parts"), SubspaceSettings(**arguments)
        count = settings.subspaces if settings.apart else 1
        kept = [
            [tensors[f"artifacts.{k}.{name}"].to(layer.weight.device) for k in range(count)]
            for name in ("u0", "s0", "v0")
        ]
        initial = Factors(torch.cat(kept[0], -1), torch.cat(kept[1], -1), torch.cat(kept[2], -2))
        return cls(layer, parts, settings, initial)

    @torch.no_grad()
    def rebase(self, before: tuple[Tensor, ...]) -> None:
        """Updates W_sem to loaded initial directions, so that the pretrained matrix is unchanged.

        Args:
            before: the initial directions before loading.
        """
        if not all(torch.equal(new, old) for new, old in zip(self.initial, before, strict=True)):
            self.semantic += (
                (dense_product(Factors(*before)) - dense_product(self.initial))
                .flatten(0, 1)
                .to(self.semantic.dtype)
            )
            self.gain.copy_(self.initial_gain())

    def _concatenate(self, name: str, dim: int) -> Tensor:
        factors = [getattr(unit, name) for unit in self.units]
        return factors[0] if len(factors) == 1 else torch.cat(factors, dim)

    @property
    def u(self) -> Float[Tensor, "parts out rank"]:
        """Left directions of all subspaces."""
        return self._concatenate("u0" if self.settings.hard else "u", -1)

    @property
    def s(self) -> Float[Tensor, "parts rank"]:
        """Weights of the directions; with `hard` the coefficients' singular values, falling."""
        return (
            torch.linalg.svdvals(self._concatenate("c", -1))
            if self.settings.hard
            else self._concatenate("s", -1)
        )

    @property
    def v(self) -> Float[Tensor, "parts rank in"]:
        """Right directions of all subspaces, as rows."""
        return self._concatenate("v0" if self.settings.hard else "v", -2)

    @property
    def left(self) -> Float[Tensor, "parts out rank"]:
        """P of the artifact part P V^T: the left directions times their weights."""
        return (
            self.u @ self._concatenate("c", -1)
            if self.settings.hard
            else self.u * self.s[..., None, :]
        )

    @property
    def initial(self) -> Factors:
        """The factors at the start."""
        return Factors(
            self._concatenate("u0", -1), self._concatenate("s0", -1), self._concatenate("v0", -2)
        )

    def initial_gain(self) -> Float[Tensor, " parts"]:
        """The energy gain ||W||_F^2 - ||W_sem||_F^2 of each pretrained matrix W."""
        u, s, vt = self.initial
        return energy_gain(self.semantic_image(vt), u * s[..., None, :], vt)

    def semantic_image(
        self, right: Float[Tensor, "parts rank in"]
    ) -> Float[Tensor, "parts out rank"]:
        """The products W_sem V of each matrix, with the directions V as rows."""
        return self.semantic.unflatten(0, (self.parts, -1)).to(right.dtype) @ right.mT

    @property
    def weight(self) -> Float[Tensor, "out in *kernel"]:
        """The effective matrix, in the shape of the plain layer's weight."""
        weight = self.semantic + (self.left @ self.v).view_as(self.semantic).to(self.semantic.dtype)
        return weight if self.stride is None else weight[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Computes the plain layer's output under the effective weight, without forming it.

        Args:
            x: (*, in), or (batch, in, height, width) of a convolution.
        """
        left, down = self.left, self.v.flatten(0, 1)
        up = torch.block_diag(*left.mT) if self.parts > 1 else left[0].mT
        if self.stride is not None:
            code = functional.conv2d(x, down[..., None, None], stride=self.stride)
            return functional.conv2d(
                x, self.semantic[..., None, None], self.bias, self.stride
            ) + functional.conv2d(code, up.mT[..., None, None])
        semantic, bias = self.semantic, self.bias
        if torch.is_autocast_enabled(x.device.type):
            kind = torch.get_autocast_dtype(x.device.type)
            x, semantic, up, down = x.to(kind), semantic.to(kind), up.to(kind), down.to(kind)
            bias = None if bias is None else bias.to(kind)
        y = cast(Tensor, _Factored.apply(x.reshape(-1, self.in_features), semantic, bias, up, down))
        return y.view(*x.shape[:-1], self.out_features)

    def fold(self) -> Matrix:
        """The plain layer with the effective weight."""
        return plain_layer(self.weight, self.bias, self.stride)

    def extra_repr(self) -> str:
        """The sizes that `print(model)` shows."""
        return (
            f"{self.in_features}, {self.out_features}, parts={self.parts}, "
            f"subspaces={self.settings.subspaces}, directions={self.settings.directions}"
        )


class _Factored(torch.autograd.Function):
    """x W_sem^T + b + (x V) P^T and its gradients.

    Each low-rank product is added into the large one in place, which saves a temporary of its size.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, semantic: Tensor, bias: Tensor | None, up: Tensor, down: Tensor
    ) -> Tensor:
        code = x @ down.mT
        y = functional.linear(x, semantic, bias)
        y.addmm_(code, up)
        ctx.save_for_backward(x, semantic, up, down, code)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, semantic, up, down, code = ctx.saved_tensors
        inner = gradient @ up.mT
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = gradient @ semantic
            for_x.addmm_(inner, down)
        for_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        for_down = inner.mT @ x if ctx.needs_input_grad[4] else None
        return for_x, None, for_bias, code.mT @ gradient, for_down


def subspace_layers(model: nn.Module) -> Iterator[SubspaceLinear]:
    """Yields every decomposed layer of a model."""
    return (module for module in model.modules() if isinstance(module, SubspaceLinear))


def _initial_factors(
    matrices: Float[Tensor, "parts out in"], settings: SubspaceSettings
) -> Factors:
    """The singular directions to train of each matrix, ordered by subspace."""
    found = [cached_directions(matrix, settings.rank, settings.split) for matrix in matrices]
    u, s, vt = map(torch.stack, zip(*found, strict=True))
    order = torch.arange(settings.rank)
    if settings.allotment == "interleave":
        order = order.view(settings.directions, settings.subspaces).T.flatten()
    initial = Factors(u[..., order], s[..., order], vt[:, order])
    if settings.hard or not settings.working_scale:
        return initial
    medians = torch.stack([cached_median_singular_value(matrix) for matrix in matrices])
    return initial._replace(s=torch.maximum(initial.s, medians[:, None]))
