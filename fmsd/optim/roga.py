"""RoGA: gradient alignment over forgery domains by perturbing the parameters (Qiu, Jiang and Tan, 2025, arXiv 2505.20653).

The paper says: "a novel learning objective that aligns generalization gradient updates with ERM
gradient updates", by "the application of perturbations to model parameters, aligning the ascending
points across domains", "without introducing additional regularization". Domains are forgery
methods. The equations below are our reading. With the domains' losses L_i, their gradients g_i and
the gradient g of the whole loss:

    theta_i = theta + rho * g_i / ||g_i|| - alpha * g           the ascending point of domain i, shifted along the ERM descent
    direction = (g + gamma * sum_i grad L_i(theta_i)) / (1 + gamma)

The losses L_i add up to the whole loss, each with the domain's share of the batch's frames: with
equal shares this is the mean over domains of their mean losses. With one domain and gamma = 1 it is
SAGM, the two-pass ancestor; the wording follows GAC-FAS (Le & Woo, CVPR 2024), which does the same
for face anti-spoofing.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.optim.wrapper import (
    COSINE,
    DOMAINS,
    PERTURBED_LOSS,
    TINY,
    Ascent,
    Flat,
    Outcome,
    Pass,
    Reduce,
    ascent_scale,
    check_nonnegative,
    cosine_similarity,
    descent_per_ascent,
)


@dataclass(frozen=True, slots=True)
class RoGA(Ascent):
    """Follows a mean of the gradient and of those at the ascending points of all domains.

    Args:
        rho: distance of the ascending points, at least 0.
        alpha: how far they are shifted down the gradient of the whole loss, at least 0; it
            multiplies the raw gradient.
        gamma: weight of the gradients at the ascending points against the gradient itself, at least
            0; infinite follows them alone.
        evaluate: at its ascending point a domain is evaluated on its `own` frames, two passes over
            the batch in all, or on `all` frames, which makes it 1 + number of domains.
        warmup_epochs: epochs of plain ERM before.

    The other arguments are those of `fmsd.optim.wrapper.Ascent`.
    """

    rho: float = 0.05
    alpha: float = 1e-3
    gamma: float = 1.0
    evaluate: Literal["own", "all"] = "own"
    warmup_epochs: int = 1
    by_domain: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        check_nonnegative(
            alpha=self.alpha,
            gamma=0.0 if self.gamma == math.inf else self.gamma,
            warmup_epochs=self.warmup_epochs,
        )
        self.check(self.rho)
        if self.evaluate not in ("own", "all"):
            raise InputError(f"wrapper.evaluate={self.evaluate} is unknown", "choose own or all")

    def __call__(
        self,
        params: Sequence[nn.Parameter],
        passes: Sequence[Pass],
        resting: Collection[nn.Parameter] = (),
        reduce: Reduce | None = None,
        head: Collection[nn.Parameter] | None = None,
    ) -> Outcome:
        """A pass per domain at the parameters, and one (`own`) or as many as there are domains (`all`) at each ascending point."""
        flat = Flat(params, resting, reduce, head, self.perturb)
        scales = self.scales(flat)
        own, losses = flat.gradients(passes)
        gradient = own.sum(0)
        descent = flat.movable(gradient)
        with flat.perturbed() as place:

            def at(part: Tensor, run: Pass) -> Callable[[], Tensor]:
                def ascended() -> Tensor:
                    movable = flat.movable(part)
                    place(movable * ascent_scale(movable, self.rho, scales) - self.alpha * descent)
                    return (
                        run()
                        if self.evaluate == "own"
                        else torch.stack([each() for each in passes]).sum()
                    )

                return ascended

            aligned, perturbed = flat.gradient(
                [at(part, run) for part, run in zip(own, passes, strict=True)]
            )
        if self.evaluate == "all":
            aligned /= len(passes)
            perturbed /= len(passes)
        diagnostics = {
            COSINE: cosine_similarity(gradient, aligned),
            PERTURBED_LOSS: perturbed.sum(),
        }
        diagnostics |= descent_per_ascent(descent, self.rho, self.alpha, scales) | flat.head_share(
            gradient
        )
        if (count := len(passes)) > 1:
            products = own @ own.mT
            lengths = products.diagonal().sqrt() + TINY
            cosines = products / lengths.outer(lengths)
            diagnostics[DOMAINS] = (cosines.sum() - cosines.trace()) / (count * (count - 1))
        flat.follow(
            gradient.lerp_(
                aligned, 1.0 if math.isinf(self.gamma) else self.gamma / (1 + self.gamma)
            )
        )
        return Outcome(losses, diagnostics)
