"""SAGM: sharpness-aware gradient matching (Wang et al., CVPR 2023, arXiv 2303.10353)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fmsd.optim.wrapper import COSINE, DESCENT, Flat, Outcome, Pass, Reduce, cosine, in_range, norm


@dataclass(frozen=True, slots=True)
class SAGM:
    """Follows (g + g_p) / 2 with g_p the gradient at theta + (rho / ||g|| - alpha) g.

    Args:
        rho: distance of the ascending point, at least 0.
        alpha: how far it is shifted down the gradient, at least 0; it multiplies the raw gradient.
        warmup_epochs: epochs of plain ERM before.
    """

    rho: float = 0.05
    alpha: float = 1e-3
    warmup_epochs: int = 0
    by_domain: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        in_range(rho=self.rho, alpha=self.alpha, warmup_epochs=self.warmup_epochs)

    def __call__(
        self, params: Sequence[nn.Parameter], passes: Sequence[Pass], resting: Collection[nn.Parameter] = (), reduce: Reduce | None = None
    ) -> Outcome:
        """Two passes."""
        flat = Flat(params, resting, reduce)
        gradient, losses = flat.gradient(passes)
        ascent = flat.movable(gradient)
        ascended = flat.gradient_at(ascent * (self.rho / norm(ascent) - self.alpha), passes)
        diagnostics = {COSINE: cosine(gradient, ascended)}
        if self.rho:
            diagnostics[DESCENT] = self.alpha * norm(ascent) / self.rho
        flat.follow(gradient.lerp_(ascended, 0.5))
        return Outcome(losses, diagnostics)
