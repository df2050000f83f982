"""What a merger works on: a base, the specialists that were trained from it, and what each of their tensors is to the network.

A state dict is any mapping from names to tensors. One that reads its file as it is asked keeps the
memory of a merge at a few times the largest tensor, whatever the model's size.
"""

import math
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
from fmsd.linalg import SVD, Quality
from fmsd.merge.parallel import parallel_map

StateDict = Mapping[str, Tensor]
"""Tensors by timm's names."""

Kind = Literal["matrix", "other", "statistic", "counter", "head", "direction"]


class Part(NamedTuple):
    """What a tensor is to the network, by the type of the module it belongs to.

    A `matrix` is the weight of a linear layer or a convolution; everything else that learns
    (biases, norms, embeddings) is `other`. A `statistic` was counted on data, as batch norm's mean;
    a `counter` holds integers; the `head` is the classifier, and a `direction` the weight of one
    that leaves its length out.

    Args:
        slices: number of matrices stacked along the output: a fused query, key, value has 3.
        affine: whether what is `other` belongs to a normalisation layer or is a bias.
    """

    kind: Kind
    slices: int = 1
    affine: bool = False

    def matrices(
        self, weight: Float[Tensor, "..."], stack: int = 0
    ) -> Float[Tensor, "*stack slices rows columns"]:
        """A matrix part's weight (*stack, out, in, *kernel) as the matrices it consists of, in the same memory; columns are input x kernel.

        Args:
            stack: leading dimensions that are left alone.
        """
        return weight.flatten(stack + 1).unflatten(stack, (self.slices, -1))


class Merged(NamedTuple):
    """A merged tensor, and what there is to say about it."""

    name: str
    tensor: Tensor
    about: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Specialists:
    """A base and the experts that were trained from it. Arithmetic is float32, whatever the files hold.

    Args:
        base: the pretrained weights theta_0.
        experts: the weights theta_i.
        parts: the tensors of the network that differ among them, in the order of its state dict.
        labels: the experts' names, for messages.
        known: the Gram matrices of the first experts, or of all, where they are known already; see
            `gram`.
        watch: is called whenever a tensor is read from all files.
        scratch: folder for temporary files; the system's if None.
    """

    base: StateDict
    experts: Sequence[StateDict]
    parts: Mapping[str, Part]
    labels: Sequence[str] = ()
    known: Float64[Tensor, "layers known known"] | None = None
    watch: Callable[[], None] = lambda: None
    scratch: Path | None = None
    _rooms: threading.local = field(
        default_factory=threading.local, init=False, repr=False, compare=False
    )

    @cached_property
    def names(self) -> list[str]:
        """The tensors that mergers merge: all that learned but the head."""
        return [name for name, part in self.parts.items() if part.kind in ("matrix", "other")]

    @cached_property
    def sizes(self) -> list[int]:
        """How many numbers each of them holds."""
        return [self.base[name].numel() for name in self.names]

    def start(self, name: str) -> Tensor:
        """A tensor theta_0 of the base, in memory of its own."""
        return self.base[name].to(torch.float32, copy=True)

    def tasks(self, name: str) -> Float[Tensor, "experts ..."]:
        """The task vectors tau_i = theta_i - theta_0 of one tensor, in memory that the next call in this thread fills anew; it may be overwritten."""
        self.watch()
        base = self.base[name].to(torch.float32)
        if not hasattr(self._rooms, "room"):  # fresh memory costs more than the arithmetic
            self._rooms.room = torch.empty(len(self.experts), max(self.sizes))
        whole: Tensor = self._rooms.room
        room = whole[:, : base.numel()].unflatten(1, base.shape) if base.dim() else whole[:, 0]
        for row, expert in zip(room, self.experts, strict=True):
            weight = expert[name]
            if weight.dtype == torch.float32:
                torch.sub(weight, base, out=row)
            else:
                row.copy_(weight).sub_(base)
        return room

    @cached_property
    def gram(self) -> Float64[Tensor, "layers experts experts"]:
        """The inner products <tau_i, tau_j> of every tensor in `names`, in double precision; made at the first call.

        Raises:
            InputError: an expert holds a value that is no number.
        """
        if self.known is not None and self.known.shape[1] == len(self.experts):
            return self.known
        nothing = torch.zeros(0, len(self.experts), len(self.experts), dtype=torch.float64)
        return torch.cat([nothing, *(gram[None] for gram in gram_matrices(self))])

    def label(self, place: int) -> str:
        """An expert's name."""
        return self.labels[place] if self.labels else f"expert {place + 1}"


Merger = Callable[[Specialists], Iterator[Merged]]
"""Merges the tensors in `Specialists.names`, one by one, in this order. A frozen value whose fields are its coefficients."""


def merge_tensors(specialists: Specialists, merger: Merger) -> Iterator[Merged]:
    """All tensors of the merged network: those that learned by the merger; heads and statistics are averaged, counters are the base's.

    Raises:
        InputError: a head or a statistic holds a value that is no number, or the directions of the
            heads have no mean.
    """
    for name, part in specialists.parts.items():
        if part.kind in ("head", "direction", "statistic"):
            for place, expert in enumerate(specialists.experts):
                if not expert[name].isfinite().all():
                    raise nonfinite_error(specialists, place, name)
            yield Merged(
                name,
                (mean_direction if part.kind == "direction" else mean_weights)(specialists, name),
            )
        elif part.kind == "counter":
            yield Merged(name, specialists.base[name])
    if specialists.names:
        yield from merger(specialists)


def mean_weights(specialists: Specialists, name: str) -> Tensor:
    """The mean of the experts' tensors."""
    specialists.watch()
    first, *others = specialists.experts
    total = first[name].to(torch.float32, copy=True)
    for expert in others:
        total += expert[name]  # summed in float32, whatever is added
    return total.div_(len(specialists.experts))


def mean_direction(specialists: Specialists, name: str) -> Tensor:
    """The direction of the mean of the experts' ones, each of which counts the same whatever its length; of length 1.

    Raises:
        InputError: they cancel each other.
    """
    specialists.watch()
    mean = torch.stack(
        [
            functional.normalize(expert[name].to(torch.float32).flatten(), dim=0)
            for expert in specialists.experts
        ]
    ).mean(0)
    length = torch.linalg.vector_norm(mean)
    if length < 1e-5:
        raise InputError(
            f"The heads of the experts point opposite ways, so {name!r} has no mean direction",
            "leave one of them out",
        )
    return (mean / length).view(specialists.experts[0][name].shape)


BLOCK_ELEMENTS = 1 << 16
"""Numbers of each task vector that are worked on at a time, to stay in the cache."""

SHORT = 1 << 12
"""Length of the products that a block is cut into: a batch of them is three times as fast as a single long one."""


def gram_matrices(specialists: Specialists) -> Iterator[Float64[Tensor, "experts experts"]]:
    """The inner products of the task vectors, tensor by tensor in the order of `Specialists.names`.

    Raises:
        InputError: an expert holds a value that is no number.
    """
    known = specialists.known
    old = 0 if known is None else known.shape[1]

    def gram(name: str) -> Float64[Tensor, "experts experts"]:
        tasks = specialists.tasks(name)
        tasks = tasks.view(len(tasks), -1)
        found = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
        room = torch.empty(len(tasks), min(BLOCK_ELEMENTS, tasks.shape[1]), dtype=torch.float64)
        for block in tasks.split(BLOCK_ELEMENTS, dim=1):
            rows = room[:, : block.shape[1]].copy_(block)
            whole = rows.shape[1] // SHORT * SHORT
            short, rest = rows[:, :whole].unflatten(1, (-1, SHORT)).transpose(0, 1), rows[:, whole:]
            found[old:] += torch.bmm(short[:, old:], short.mT).sum(0) + rest[old:] @ rest.mT
        return found

    with parallel_map() as mapped:
        for place, (name, found) in enumerate(
            zip(specialists.names, mapped(gram, specialists.names, specialists.sizes), strict=True)
        ):
            if known is not None:
                found[:old, :old], found[:old, old:] = known[place], found[old:, :old].mT
            if not found.isfinite().all():
                odd = int(found.diagonal().isfinite().logical_not().nonzero()[0])
                raise nonfinite_error(specialists, odd, name)
            yield found


def nonfinite_error(specialists: Specialists, place: int, name: str) -> InputError:
    """What to say about a broken tensor of an expert or of the base."""
    if name in specialists.base and not specialists.base[name].isfinite().all():
        return InputError(
            f"The base holds NaN or infinite values in {name!r}", "give another as base=PATH"
        )
    return InputError(
        f"{specialists.label(place)} holds NaN or infinite values in {name!r}",
        "leave it out, or train it again",
    )


def check_range(low: float = 0.0, high: float = math.inf, **settings: float) -> None:
    """Refuses a coefficient of a merger that is no number from `low` to `high`.

    Raises:
        InputError: such a coefficient.
    """
    for name, value in settings.items():
        if (
            isinstance(value, (str, bool))
            or value is None
            or not low <= value <= high
            or math.isinf(value)
        ):
            limits = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise InputError(f"merger.{name}={value} is out of range", f"give a number {limits}")


def check_choice(choices: Sequence[object], **settings: object) -> None:
    """Refuses a setting of a merger that is none of its choices.

    Raises:
        InputError: such a setting.
    """
    for name, value in settings.items():
        if value not in choices:
            raise InputError(
                f"merger.{name}={value} is unknown", f"choose one of {', '.join(map(str, choices))}"
            )


def check_truncation(svd: SVD, least_energy: float) -> None:
    """Refuses settings of `fmsd.linalg.truncate` that a merger was given and that are out of range.

    Raises:
        InputError: such a setting.
    """
    check_choice(("exact", "krylov"), svd=svd)
    check_range(high=1.0, least_energy=least_energy)


def truncation_record(rank: int, found: Sequence[Quality]) -> dict[str, Any]:
    """The record of a tensor whose matrices were truncated: their rank and the quality of each, by expert and in each expert by slice."""
    record = {
        "rank": rank,
        "energy": [own.energy for own in found],
        "of_best": [own.of_best for own in found],
    }
    rejected = [own.rejected for own in found if own.rejected is not None]
    return {**record, "rejected": rejected} if rejected else record
