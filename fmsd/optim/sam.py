"""SAM: sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from fmsd.optim.wrapper import COSINE, PERTURBED_LOSS, Flat, Outcome, Pass, Reduce, ascent, check_ascent, cosine, in_range


@dataclass(frozen=True, slots=True)
class SAM:
    """Follows the gradient at the point of the highest loss nearby: theta + rho * g / ||g||.

    Args:
        rho: distance of that point, at least 0.
        warmup_epochs: epochs of plain ERM before.
        perturb: the `backbone`, whose trainable parameters are perturbed while the head's stay, or `all` that is trainable.
        adaptive: climb by rho T^2 g / ||T g|| with T = |theta| + eta (ASAM, Kwon et al., ICML 2021, arXiv 2102.11600). T is taken of every
            parameter, of vectors and biases as of matrices: singular values are vectors, and without them the ascent would depend on how a
            product is split into factors. With eta = 0 a parameter that is exactly 0 is not perturbed.
        eta: added to |theta| in an adaptive ascent, at least 0.
    """

    rho: float = 0.05
    warmup_epochs: int = 0
    perturb: Literal["backbone", "all"] = "backbone"
    adaptive: bool = False
    eta: float = 0.0
    by_domain: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        in_range(warmup_epochs=self.warmup_epochs)
        check_ascent(self.rho, self.perturb, self.adaptive, self.eta)

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
        scales = flat.scales(self.eta) if self.adaptive else None
        gradient, losses = flat.gradient(passes)
        movable = flat.movable(gradient)
        ascended, perturbed = flat.gradient_at(movable * ascent(movable, self.rho, scales), passes)
        flat.follow(ascended)
        return Outcome(losses, {COSINE: cosine(gradient, ascended), PERTURBED_LOSS: perturbed.sum()} | flat.head_share(gradient))
