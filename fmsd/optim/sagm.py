"""SAGM: sharpness-aware gradient matching (Wang et al., CVPR 2023, arXiv 2303.10353)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fmsd.optim.ascent import Ascent, ascent_scale, descent_per_ascent
from fmsd.optim.flat import Flat, cosine_similarity
from fmsd.optim.wrapper import COSINE, PERTURBED_LOSS, Pass, Reduce, StepOutcome, check_nonnegative


@dataclass(frozen=True, slots=True)
class SAGM(Ascent):
    """Follows (g + g_p) / 2 with g_p the gradient at theta + (rho / ||g|| - alpha) g.

    Args:
        rho: distance of the ascending point, at least 0.
        alpha: shift of that point down the gradient, at least 0; it multiplies the raw gradient.
        warmup_epochs: number of first epochs of plain ERM.

    Further arguments: see `fmsd.optim.ascent.Ascent`.
    """

    rho: float = 0.05
    alpha: float = 1e-3
    warmup_epochs: int = 0
    by_domain: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        check_nonnegative(alpha=self.alpha, warmup_epochs=self.warmup_epochs)
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
            masked * (ascent_scale(masked, self.rho, scales) - self.alpha), passes
        )
        diagnostics = {
            COSINE: cosine_similarity(gradient, ascended),
            PERTURBED_LOSS: perturbed.sum(),
        }
        diagnostics |= descent_per_ascent(masked, self.rho, self.alpha, scales) | flat.head_share(
            gradient
        )
        flat.set_grad(gradient.lerp_(ascended, 0.5))
        return StepOutcome(losses, diagnostics)
