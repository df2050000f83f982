"""SAM: sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fmsd.optim.wrapper import COSINE, Flat, Outcome, Pass, Reduce, cosine, in_range, norm


@dataclass(frozen=True, slots=True)
class SAM:
    """Follows the gradient at the point of the highest loss nearby: theta + rho * g / ||g||.

    Args:
        rho: distance of that point, at least 0.
        warmup_epochs: epochs of plain ERM before.
    """

    rho: float = 0.05
    warmup_epochs: int = 0
    by_domain: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        in_range(rho=self.rho, warmup_epochs=self.warmup_epochs)

    def __call__(
        self, params: Sequence[nn.Parameter], passes: Sequence[Pass], resting: Collection[nn.Parameter] = (), reduce: Reduce | None = None
    ) -> Outcome:
        """Two passes."""
        flat = Flat(params, resting, reduce)
        gradient, losses = flat.gradient(passes)
        ascent = flat.movable(gradient)
        ascended = flat.gradient_at(ascent * (self.rho / norm(ascent)), passes)
        flat.follow(ascended)
        return Outcome(losses, {COSINE: cosine(gradient, ascended)})
