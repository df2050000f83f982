"""The ascent that SAM, SAGM and RoGA share: a perturbation up a gradient, plain or adaptive."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fmsd.checks import check_choice
from fmsd.errors import InputError
from fmsd.optim.flat import Flat, vector_norm
from fmsd.optim.wrapper import DESCENT, check_nonnegative


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """Settings of the ascent.

    Args:
        perturb: perturb the trainable parameters of the `backbone` and leave the head in place, or
            perturb `all` trainable parameters.
        adaptive: ascend by rho T^2 g / ||T g|| with T = |theta| + eta (ASAM, Kwon et al., ICML
            2021, arXiv 2102.11600). T is taken of every parameter, of vectors and biases as of
            matrices: singular values are vectors, and without them the ascent would depend on how a
            product is split into factors. With eta = 0 a parameter that is exactly 0 is not
            perturbed.
        eta: added to |theta| in an adaptive ascent, at least 0.
    """

    perturb: Literal["backbone", "all"] = "backbone"
    adaptive: bool = False
    eta: float = 0.0

    def check(self, rho: float) -> None:
        """Checks the settings of an ascent over the distance rho.

        Raises:
            InputError: a setting is unknown, out of range or without effect.
        """
        check_nonnegative(rho=rho, eta=self.eta)
        check_choice("wrapper.perturb", self.perturb, ("backbone", "all"))
        if self.eta and not self.adaptive:
            raise InputError(
                f"wrapper.eta={self.eta} has no effect on an ascent that is not adaptive",
                "set wrapper.adaptive=true, or leave out wrapper.eta",
            )

    def scales(self, flat: Flat) -> Float[Tensor, " parameters"] | None:
        """Returns T of every parameter; None if the ascent is not adaptive."""
        return flat.scales(self.eta) if self.adaptive else None


def ascent_scale(
    gradient: Float[Tensor, " parameters"],
    rho: float,
    scales: Float[Tensor, " parameters"] | None = None,
) -> Tensor:
    """Returns the factor on a gradient g for an ascent over rho: rho / ||g||, or rho T^2 / ||T g||.

    Args:
        gradient: zeros at parameters that are not perturbed.
        rho: the distance, Euclidean or, of an adaptive ascent, after division by T.
        scales: T of an adaptive ascent, see `fmsd.optim.flat.Flat.scales`. With T = |theta| the
            ascending point has the same outputs if two factors whose product matters are rescaled,
            one by c and the other by 1 / c.
    """
    if scales is None:
        return rho / vector_norm(gradient)
    return scales.square() * (rho / vector_norm(scales * gradient))


def descent_per_ascent(
    gradient: Float[Tensor, " parameters"],
    rho: float,
    alpha: float,
    scales: Float[Tensor, " parameters"] | None = None,
) -> dict[str, Tensor]:
    """Returns the diagnostic `DESCENT` of a point theta + ascent - alpha g; empty if rho is 0.

    It is alpha ||g|| / rho, or alpha ||g||^2 / (rho ||T g||) for an adaptive ascent: to first
    order, the loss that the shift takes away as a share of the loss that the ascent adds.
    """
    if not rho:
        return {}
    length = vector_norm(gradient)
    if scales is None:
        return {DESCENT: alpha * length / rho}
    return {DESCENT: alpha * length**2 / (rho * vector_norm(scales * gradient))}
