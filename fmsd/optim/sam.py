"""SAM: sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fmsd.optim.ascent import Ascent, ascent_scale
from fmsd.optim.flat import Flat, cosine_similarity
from fmsd.optim.wrapper import COSINE, PERTURBED_LOSS, Pass, Reduce, StepOutcome, check_nonnegative


@dataclass(frozen=True, slots=True)
class SAM(Ascent):
    """Follows the gradient at the point of the highest loss nearby: theta + rho * g / ||g||.

    Args:
        rho: distance of the ascending point, at least 0.
        warmup_epochs: number of first epochs of plain ERM.

    Further arguments: see `fmsd.optim.ascent.Ascent`.
    """

    rho: float = 0.05
    warmup_epochs: int = 0
    by_domain: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        check_nonnegative(warmup_epochs=self.warmup_epochs)
        self.check(self.rho)

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
        scales = self.scales(flat)
        gradient, losses = flat.gradient(passes)
        masked = flat.zero_unperturbed(gradient)
        ascended, perturbed = flat.gradient_at(
            masked * ascent_scale(masked, self.rho, scales), passes
        )
        flat.set_grad(ascended)
        return StepOutcome(
            losses,
            {COSINE: cosine_similarity(gradient, ascended), PERTURBED_LOSS: perturbed.sum()}
            | flat.head_share(gradient),
        )
