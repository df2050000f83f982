"""Warnings about the diagnostics of an optimizer wrapper."""

import logging

from fmsd.optim.wrapper import DESCENT, PERTURBED_LOSS, StepOutcome

log = logging.getLogger(__name__)

MAX_LOSS_RATIO = 1.5
"""Loss at the perturbed parameters, as a multiple of the loss, above which a warning is logged."""


def warn_of_perturbation(outcome: StepOutcome, warned: set[str]) -> None:
    """Warns where perturbed points lie down the gradient or too far up.

    Args:
        warned: the diagnostics that were warned of before, which are not again; updated in place.
    """
    descent = outcome.diagnostics.get(DESCENT)
    if descent is not None and DESCENT not in warned and descent > 1:
        warned.add(DESCENT)
        log.warning(
            "train/descent_per_ascent is %.1f: the points that the wrapper evaluates lie down "
            "the gradient, not up; lower wrapper.alpha.",
            descent.item(),
        )
    perturbed, loss = outcome.diagnostics.get(PERTURBED_LOSS), outcome.losses.sum()
    if perturbed is not None and PERTURBED_LOSS not in warned and perturbed > MAX_LOSS_RATIO * loss:
        warned.add(PERTURBED_LOSS)
        log.warning(
            "The loss at the perturbed parameters is %.1f times the loss: they are too far "
            "away to be informative; lower wrapper.rho.",
            (perturbed / loss).item(),
        )
