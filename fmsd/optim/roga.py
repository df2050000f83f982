"""RoGA: gradients aligned over forgery domains by perturbing the parameters.

Qiu, Jiang and Tan, 2025, arXiv 2505.20653.

The paper says: "a novel learning objective that aligns generalization gradient updates with ERM
gradient updates", by "the application of perturbations to model parameters, aligning the ascending
points across domains", "without introducing additional regularization". Domains are forgery
methods. The equations below are our reading. With the domains' losses L_i, their gradients g_i and
the gradient g of the whole loss:

    theta_i = theta + rho * g_i / ||g_i|| - alpha * g
    direction = (g + gamma * sum_i grad L_i(theta_i)) / (1 + gamma)

theta_i is the ascending point of domain i, shifted along the ERM descent.

The losses L_i add up to the whole loss, each with the domain's share of the batch's frames: with
equal shares this is the mean over domains of their mean losses. With one domain and gamma = 1 it is
SAGM, the two-pass ancestor; the wording follows GAC-FAS (Le & Woo, CVPR 2024), which does the same
for face anti-spoofing.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fmsd.checks import check_choice
from fmsd.optim.ascent import Ascent, ascent_scale, descent_per_ascent
from fmsd.optim.flat import TINY, Flat, cosine_similarity
from fmsd.optim.wrapper import (
    COSINE,
    DOMAINS,
    PERTURBED_LOSS,
    Pass,
    Reduce,
    StepOutcome,
    check_nonnegative,
)


@dataclass(frozen=True, slots=True)
class RoGA(Ascent):
    """Follows a weighted mean of the gradient and the gradients at all domains' ascending points.

    Args:
        rho: distance of the ascending points, at least 0.
        alpha: shift of these points down the gradient of the whole loss, at least 0; it multiplies
            the raw gradient.
        gamma: weight of the gradients at the ascending points against the gradient itself, at least
            0.
        evaluate: compute the gradient at a domain's ascending point on its `own` frames, which
            costs two passes over the batch in all, or on `all` frames, which costs 1 + number of
            domains.
        warmup_epochs: number of first epochs of plain ERM.

    Further arguments: see `fmsd.optim.ascent.Ascent`.
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
            gamma=self.gamma,
            warmup_epochs=self.warmup_epochs,
        )
        self.check(self.rho)
        check_choice("wrapper.evaluate", self.evaluate, ("own", "all"))

    def __call__(
        self,
        params: Sequence[nn.Parameter],
        passes: Sequence[Pass],
        inactive: Collection[nn.Parameter] = (),
        reduce: Reduce | None = None,
        head: Collection[nn.Parameter] | None = None,
    ) -> StepOutcome:
        """Runs each pass at the parameters, then one (`own`) or `all` at each ascending point."""
        flat = Flat(params, inactive, reduce, head, self.perturb)
        scales = self.scales(flat)
        by_domain, losses = flat.gradients(passes)
        gradient = by_domain.sum(0)
        descent = flat.zero_unperturbed(gradient)
        with flat.perturb() as move_to:

            def ascend(domain_gradient: Tensor, run: Pass) -> Callable[[], Tensor]:
                def run_at_ascending_point() -> Tensor:
                    masked = flat.zero_unperturbed(domain_gradient)
                    move_to(masked * ascent_scale(masked, self.rho, scales) - self.alpha * descent)
                    if self.evaluate == "own":
                        return run()
                    return torch.stack([each() for each in passes]).sum()

                return run_at_ascending_point

            aligned, perturbed = flat.gradient(
                [ascend(part, run) for part, run in zip(by_domain, passes, strict=True)]
            )
        if self.evaluate == "all":
            aligned /= len(passes)
            perturbed /= len(passes)
        diagnostics = {COSINE: cosine_similarity(gradient, aligned)}
        diagnostics[PERTURBED_LOSS] = perturbed.sum()
        diagnostics |= descent_per_ascent(descent, self.rho, self.alpha, scales)
        diagnostics |= flat.head_share(gradient)
        if len(passes) > 1:
            diagnostics[DOMAINS] = mean_pairwise_cosine(by_domain)
        flat.set_grad(gradient.lerp_(aligned, self.gamma / (1 + self.gamma)))
        return StepOutcome(losses, diagnostics)


def mean_pairwise_cosine(rows: Float[Tensor, "count parameters"]) -> Float[Tensor, ""]:
    """Returns the mean cosine between two different rows; zero rows count as orthogonal."""
    products, count = rows @ rows.mT, len(rows)
    lengths = products.diagonal().sqrt() + TINY
    cosines = products / lengths.outer(lengths)
    return (cosines.sum() - cosines.trace()) / (count * (count - 1))
