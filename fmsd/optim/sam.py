"""SAM: sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fmsd.optim.wrapper import (
    COSINE,
    PERTURBED_LOSS,
    Ascent,
    Flat,
    Outcome,
    Pass,
    Reduce,
    ascent_scale,
    check_nonnegative,
    cosine_similarity,
)


@dataclass(frozen=True, slots=True)
class SAM(Ascent):
    """Follows the gradient at the point of the highest loss nearby: theta + rho * g / ||g||.

    Args:
        rho: distance of that point, at least 0.
        warmup_epochs: epochs of plain ERM before.

    The other arguments are those of `fmsd.optim.wrapper.Ascent`.
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
        resting: Collection[nn.Parameter] = (),
        reduce: Reduce | None = None,
        head: Collection[nn.Parameter] | None = None,
    ) -> Outcome:
        """Two passes."""
        flat = Flat(params, resting, reduce, head, self.perturb)
        scales = self.scales(flat)
        gradient, losses = flat.gradient(passes)
        movable = flat.movable(gradient)
        ascended, perturbed = flat.gradient_at(
            movable * ascent_scale(movable, self.rho, scales), passes
        )
        flat.follow(ascended)
        return Outcome(
            losses,
            {COSINE: cosine_similarity(gradient, ascended), PERTURBED_LOSS: perturbed.sum()}
            | flat.head_share(gradient),
        )
