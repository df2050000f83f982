"""The input of a merger: task vectors of specialists, and the role of each tensor in the network.

A state dict is any mapping from names to tensors. One that reads tensors from its file on access
keeps the memory of a merge at a few times the largest tensor, whatever the model's size.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.linalg import Quality
from fmsd.merge.parallel import parallel_map

StateDict = Mapping[str, Tensor]
"""Tensors by timm's names."""

Kind = Literal["matrix", "other", "statistic", "counter", "head", "direction"]


class TensorPart(NamedTuple):
    """The role of a tensor in the network, by the type of its module.

    Args:
        kind: `matrix`, the weight of a linear layer or a convolution; `other`, any other parameter
            (biases, norms, embeddings); `statistic`, a floating-point buffer such as batch norm's
            mean; `counter`, an integer buffer; `head`, a parameter of the classifier; `direction`,
            the weight of a classifier that ignores its length.
        slices: number of matrices stacked along the output: a fused query, key, value has 3.
        affine: whether an `other` parameter belongs to a normalisation layer or is a bias.
    """

    kind: Kind
    slices: int = 1
    affine: bool = False

    def matrices(
        self, weight: Float[Tensor, "..."], stack: int = 0
    ) -> Float[Tensor, "*stack slices rows columns"]:
        """A view of a matrix part's weight as the matrices that it stacks.

        Args:
            weight: (*stack, out, in, *kernel); columns of the matrices are input x kernel.
            stack: number of leading dimensions to keep.
        """
        return weight.flatten(stack + 1).unflatten(stack, (self.slices, -1))


class Merged(NamedTuple):
    """A merged tensor, and its entries in the record of the merge."""

    name: str
    tensor: Tensor
    record: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Specialists:
    """A base and the experts trained from it; arithmetic is float32 whatever their number formats.

    Args:
        base: the pretrained weights theta_0.
        experts: the weights theta_i.
        parts: role of each tensor that differs among them, in the order of the state dict.
        labels: the experts' names, for messages.
        known_gram: the Gram matrices of the first experts, or of all, if they are known already;
            see `gram`.
        on_read: callback, called whenever a tensor is read from all files.
        tmpdir: folder for temporary files; None for the system's.
    """

    base: StateDict
    experts: Sequence[StateDict]
    parts: Mapping[str, TensorPart]
    labels: Sequence[str] = ()
    known_gram: Float64[Tensor, "layers known known"] | None = None
    on_read: Callable[[], None] = lambda: None
    tmpdir: Path | None = None
    _buffers: threading.local = field(
        default_factory=threading.local, init=False, repr=False, compare=False
    )

    @cached_property
    def names(self) -> list[str]:
        """The tensors that mergers merge: all trained parameters outside of the head."""
        return [name for name, part in self.parts.items() if part.kind in ("matrix", "other")]

    @cached_property
    def sizes(self) -> list[int]:
        """Number of elements of each tensor in `names`."""
        return [self.base[name].numel() for name in self.names]

    def base_tensor(self, name: str) -> Tensor:
        """A copy of a tensor theta_0 of the base, in float32."""
        return self.base[name].to(torch.float32, copy=True)

    def task_vectors(self, name: str) -> Float[Tensor, "experts ..."]:
        """The task vectors tau_i = theta_i - theta_0 of one tensor.

        They lie in a buffer, which the caller may overwrite and the next call in the same thread
        does overwrite.
        """
        self.on_read()
        base = self.base[name].to(torch.float32)
        if not hasattr(self._buffers, "buffer"):  # fresh memory costs more than the arithmetic
            self._buffers.buffer = torch.empty(len(self.experts), max(self.sizes))
        whole: Tensor = self._buffers.buffer
        tasks = whole[:, : base.numel()].unflatten(1, base.shape) if base.dim() else whole[:, 0]
        for row, expert in zip(tasks, self.experts, strict=True):
            weight = expert[name]
            if weight.dtype == torch.float32:
                torch.sub(weight, base, out=row)
            else:
                row.copy_(weight).sub_(base)
        return tasks

    @cached_property
    def gram(self) -> Float64[Tensor, "layers experts experts"]:
        """The inner products <tau_i, tau_j> of every tensor in `names`, in double precision.

        Raises:
            InputError: an expert has a value that is not finite.
        """
        if self.known_gram is not None and self.known_gram.shape[1] == len(self.experts):
            return self.known_gram
        empty = torch.zeros(0, len(self.experts), len(self.experts), dtype=torch.float64)
        return torch.cat([empty, *(gram[None] for gram in gram_matrices(self))])

    def label(self, index: int) -> str:
        """The name of an expert."""
        return self.labels[index] if self.labels else f"expert {index + 1}"


Merger = Callable[[Specialists], Iterator[Merged]]
"""Merges the tensors in `Specialists.names` one by one, in this order.

A merger is a frozen dataclass whose fields are its coefficients.
"""


def merge_tensors(specialists: Specialists, merger: Merger) -> Iterator[Merged]:
    """Yields all tensors of the merged network.

    Parameters outside of the head come from the merger; heads and statistics are averaged; counters
    are those of the base.

    Raises:
        InputError: a value is not finite, or the directions of the heads have no mean.
    """
    for name, part in specialists.parts.items():
        if part.kind in ("head", "direction", "statistic"):
            for index, expert in enumerate(specialists.experts):
                if not expert[name].isfinite().all():
                    raise nonfinite_error(specialists, index, name)
            average = mean_direction if part.kind == "direction" else mean_weights
            yield Merged(name, average(specialists, name))
        elif part.kind == "counter":
            yield Merged(name, specialists.base[name])
    if specialists.names:
        yield from merger(specialists)


def mean_weights(specialists: Specialists, name: str) -> Tensor:
    """The mean of the experts' tensors."""
    specialists.on_read()
    first, *others = specialists.experts
    total = first[name].to(torch.float32, copy=True)
    for expert in others:
        total += expert[name]  # in float32, whatever the number format of the term
    return total.div_(len(specialists.experts))


def mean_direction(specialists: Specialists, name: str) -> Tensor:
    """The unit vector along the mean of the experts' unit vectors.

    Raises:
        InputError: the unit vectors cancel each other.
    """
    specialists.on_read()
    units = [
        functional.normalize(expert[name].to(torch.float32).flatten(), dim=0)
        for expert in specialists.experts
    ]
    mean = torch.stack(units).mean(0)
    length = torch.linalg.vector_norm(mean)
    if length < 1e-5:
        raise InputError(
            f"The heads of the experts point opposite ways, so {name!r} has no mean direction",
            "leave one of them out",
        )
    return (mean / length).view(specialists.experts[0][name].shape)


BLOCK_ELEMENTS = 1 << 16
"""Elements of each task vector to process at a time, so that they stay in the CPU's cache."""

SHORT = 1 << 12
"""Length of the inner products in a block: a batch of short ones is three times as fast."""


def gram_matrices(specialists: Specialists) -> Iterator[Float64[Tensor, "experts experts"]]:
    """Yields the Gram matrix of the task vectors of each tensor in `Specialists.names`.

    Raises:
        InputError: an expert has a value that is not finite.
    """
    known = specialists.known_gram
    first_new = 0 if known is None else known.shape[1]

    def new_products(name: str) -> Float64[Tensor, "experts experts"]:
        """The rows of the experts whose products are not known; zeros elsewhere."""
        tasks = specialists.task_vectors(name)
        tasks = tasks.view(len(tasks), -1)
        gram = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
        buffer = torch.empty(len(tasks), min(BLOCK_ELEMENTS, tasks.shape[1]), dtype=torch.float64)
        for block in tasks.split(BLOCK_ELEMENTS, dim=1):
            rows = buffer[:, : block.shape[1]].copy_(block)
            whole = rows.shape[1] // SHORT * SHORT
            short, rest = rows[:, :whole].unflatten(1, (-1, SHORT)).transpose(0, 1), rows[:, whole:]
            gram[first_new:] += (
                torch.bmm(short[:, first_new:], short.mT).sum(0) + rest[first_new:] @ rest.mT
            )
        return gram

    names = specialists.names
    with parallel_map() as threaded_map:
        grams = threaded_map(new_products, names, specialists.sizes)
        for index, (name, gram) in enumerate(zip(names, grams, strict=True)):
            if known is not None:
                gram[:first_new, :first_new] = known[index]
                gram[:first_new, first_new:] = gram[first_new:, :first_new].mT
            if not gram.isfinite().all():
                expert = int(gram.diagonal().isfinite().logical_not().nonzero()[0])
                raise nonfinite_error(specialists, expert, name)
            yield gram


def nonfinite_error(specialists: Specialists, index: int, name: str) -> InputError:
    """The error for a tensor of an expert, or of the base, that is not finite."""
    if name in specialists.base and not specialists.base[name].isfinite().all():
        return InputError(
            f"The base holds NaN or infinite values in {name!r}", "give another as base=PATH"
        )
    return InputError(
        f"{specialists.label(index)} holds NaN or infinite values in {name!r}",
        "leave it out, or train it again",
    )


def truncation_record(rank: int, qualities: Sequence[Quality]) -> dict[str, Any]:
    """The record of a tensor whose matrices were truncated.

    Args:
        rank: of the truncated matrices.
        qualities: quality of each, ordered by expert, then by slice.
    """
    record = {
        "rank": rank,
        "energy": [quality.energy for quality in qualities],
        "of_best": [quality.of_best for quality in qualities],
    }
    rejected = [quality.rejected for quality in qualities if quality.rejected is not None]
    return {**record, "rejected": rejected} if rejected else record
