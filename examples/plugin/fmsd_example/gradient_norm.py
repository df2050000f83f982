"""A penalty on the length of the gradient (Zhao, Zhang and Hu, ICML 2022, arXiv 2202.03599)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from fmsd.errors import InputError
from fmsd.optim.ascent import ascent_scale
from fmsd.optim.flat import Flat, vector_norm
from fmsd.optim.wrapper import PERTURBED_LOSS, Pass, Reduce, StepOutcome, check_nonnegative


@dataclass(frozen=True, slots=True)
class GradientNorm:
    """Follows the gradient of loss + weight ||g||: g + weight / rho (g(theta + rho g / ||g||) - g).

    Args:
        rho: distance over which the difference is taken, above 0.
        weight: of the gradient's length in the loss, at least 0; equal to rho it is SAM.
        warmup_epochs: number of first epochs of plain ERM.
        perturb: see `fmsd.optim.ascent.Ascent`.
    """

    rho: float = 0.05
    weight: float = 0.02
    warmup_epochs: int = 0
    perturb: Literal["backbone", "all"] = "backbone"
    by_domain: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        check_nonnegative(rho=self.rho, weight=self.weight, warmup_epochs=self.warmup_epochs)
        if not self.rho:
            raise InputError("wrapper.rho=0 leaves no difference to measure", "take wrapper=erm")

    def __call__(
        self,
        params: Sequence[nn.Parameter],
        passes: Sequence[Pass],
        inactive: Collection[nn.Parameter] = (),
        reduce: Reduce | None = None,
        head: Collection[nn.Parameter] | None = None,
    ) -> StepOutcome:
        """Runs each pass twice."""
        flat = Flat(params, inactive, reduce, head, self.perturb)
        gradient, losses = flat.gradient(passes)
        masked = flat.zero_unperturbed(gradient)
        ascended, perturbed = flat.gradient_at(masked * ascent_scale(masked, self.rho), passes)
        diagnostics = {
            "gradient_length": vector_norm(masked),
            PERTURBED_LOSS: perturbed.sum(),
        } | flat.head_share(gradient)
        flat.set_grad(gradient.lerp_(ascended, self.weight / self.rho))
        return StepOutcome(losses, diagnostics)
