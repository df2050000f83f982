"""The parameters of a step as one vector, and the vector arithmetic of wrappers."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fmsd.optim.wrapper import HEAD_SHARE, Pass, Perturb, Reduce, check_head

TINY = 1e-12
"""Added to norms, so that the direction of a zero gradient is finite."""


class Flat:
    """The parameters of a step as one vector in float32 or better, and its gradients.

    Args:
        params, inactive, reduce, head: the arguments of the wrapper's call.
        perturb: the wrapper's setting.

    Raises:
        InputError: see `fmsd.optim.wrapper.check_head`.
    """

    def __init__(
        self,
        params: Sequence[nn.Parameter],
        inactive: Collection[nn.Parameter],
        reduce: Reduce | None,
        head: Collection[nn.Parameter] | None,
        perturb: Perturb,
    ) -> None:
        check_head(perturb, params, head)
        self.params, self.reduce = params, reduce
        self.sizes = [parameter.numel() for parameter in params]
        self.reached = [False] * len(params)
        self.like = params[0].new_empty(
            0, dtype=torch.promote_types(params[0].dtype, torch.float32)
        )
        self.head = None if head is None else set(head)
        unperturbed = {*inactive, *(head or () if perturb == "backbone" else ())}
        self.unperturbed = [parameter in unperturbed for parameter in params]

    def gradients(
        self, passes: Sequence[Pass]
    ) -> tuple[Float[Tensor, "passes parameters"], Float[Tensor, " passes"]]:
        """Returns the gradient of each pass, and its loss."""
        rows, losses = self.like.new_empty(len(passes), sum(self.sizes)), []
        clear_gradients(self.params)
        for run, row in zip(passes, rows, strict=True):
            losses.append(run())
            self._move_gradient(row)
        values = torch.stack(losses)
        self._reduce(rows, values)
        return rows, values

    def gradient(
        self, passes: Sequence[Pass]
    ) -> tuple[Float[Tensor, " parameters"], Float[Tensor, " passes"]]:
        """Returns the gradient of the sum of all passes, and the loss of each.

        A pass may move the parameters before it runs.
        """
        total = self.like.new_empty(sum(self.sizes))
        clear_gradients(self.params)
        losses = torch.stack([run() for run in passes])
        self._move_gradient(total)
        self._reduce(total, losses)
        return total, losses

    def gradient_at(
        self, offset: Float[Tensor, " parameters"], passes: Sequence[Pass]
    ) -> tuple[Float[Tensor, " parameters"], Float[Tensor, " passes"]]:
        """Returns the gradient of the sum of all passes at theta + offset, and the loss of each."""
        with self.perturb() as move_to:
            move_to(offset)
            return self.gradient(passes)

    def zero_unperturbed(
        self, vector: Float[Tensor, " parameters"]
    ) -> Float[Tensor, " parameters"]:
        """Returns a vector with zeros at parameters that are not perturbed.

        It is the vector itself, not a copy, if all are perturbed.
        """
        if not any(self.unperturbed):
            return vector
        masked = vector.clone()
        zeroed = [
            part
            for part, unperturbed in zip(masked.split(self.sizes), self.unperturbed, strict=True)
            if unperturbed
        ]
        torch._foreach_zero_(zeroed)  # pyright: ignore[reportPrivateImportUsage]
        return masked

    def scales(self, eta: float) -> Float[Tensor, " parameters"]:
        """Returns T = |theta| + eta of all parameters, the unit of length of an adaptive ascent."""
        values = [parameter.detach().flatten().to(self.like.dtype) for parameter in self.params]
        return torch.cat(values).abs().add_(eta)

    def head_share(self, gradient: Float[Tensor, " parameters"]) -> dict[str, Tensor]:
        """Returns the diagnostic `HEAD_SHARE` of a gradient; empty if the head is unknown."""
        if self.head is None:
            return {}
        inside = self.head
        parts = [
            part
            for parameter, part in zip(self.params, gradient.split(self.sizes), strict=True)
            if parameter in inside
        ]
        return {HEAD_SHARE: norm_share(parts, [gradient])}

    def set_grad(self, direction: Float[Tensor, " parameters"]) -> None:
        """Sets p.grad to a direction, and to None where no pass gave a gradient."""
        for parameter, part, reached in zip(
            self.params, direction.split(self.sizes), self.reached, strict=True
        ):
            parameter.grad = part.view_as(parameter).to(parameter.dtype) if reached else None

    @contextlib.contextmanager
    def perturb(self) -> Iterator[Callable[[Tensor], None]]:
        """Yields `move_to(offset)`, which moves the parameters to theta + offset.

        On leaving the context they are theta again, bit for bit, restored from a copy, also if the
        block fails or is interrupted.
        """
        # Shares memory with the parameters.
        values = [parameter.detach() for parameter in self.params]
        original = [value.clone() for value in values]

        def move_to(offset: Tensor) -> None:
            parts = [
                part.view_as(value)
                for part, value in zip(offset.split(self.sizes), values, strict=True)
            ]
            torch._foreach_copy_(values, original)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(values, parts)  # pyright: ignore[reportPrivateImportUsage]

        try:
            yield move_to
        finally:
            torch._foreach_copy_(values, original)  # pyright: ignore[reportPrivateImportUsage]

    def _move_gradient(self, out: Tensor) -> None:
        """Writes p.grad of all parameters into `out`, zeros where there is none, and drops it."""
        parts = []
        for index, parameter in enumerate(self.params):
            self.reached[index] |= parameter.grad is not None
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parts.append(gradient.detach().flatten().to(out.dtype))
        clear_gradients(self.params)
        torch.cat(parts, out=out)

    def _reduce(self, *tensors: Tensor) -> None:
        if self.reduce is not None:
            self.reduce(list(tensors))


def clear_gradients(params: Sequence[nn.Parameter]) -> None:
    """Sets p.grad of all parameters to None."""
    for parameter in params:
        parameter.grad = None


def existing_gradients(params: Iterable[nn.Parameter]) -> list[Tensor]:
    """Returns the gradients of those parameters that have one."""
    return [parameter.grad for parameter in params if parameter.grad is not None]


def vector_norm(vector: Tensor) -> Float[Tensor, ""]:
    """Returns the Euclidean norm plus `TINY`."""
    return torch.linalg.vector_norm(vector) + TINY


def cosine_similarity(
    one: Float[Tensor, " parameters"], other: Float[Tensor, " parameters"]
) -> Float[Tensor, ""]:
    """Returns the cosine between two vectors, without copying them; 0 if one of them is zero."""
    return one @ other / (vector_norm(one) * vector_norm(other))


def norm_share(parts: Sequence[Tensor], whole: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Returns the share of `parts` in the squared norm of `whole`; 0 if that is zero."""
    return (nn.utils.get_total_norm(parts) / (nn.utils.get_total_norm(whole) + TINY)) ** 2
