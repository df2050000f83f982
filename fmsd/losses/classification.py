"""Binary cross-entropy, optionally with smoothed labels."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def classification(
    logit: Float[Tensor, " frames"], label: Int[Tensor, " frames"], smoothing: float = 0.0
) -> Float[Tensor, " frames"]:
    """Computes the cross-entropy of each frame with its smoothed label.

    The labels 0 and 1 become s / 2 and 1 - s / 2 (Szegedy et al., CVPR 2016, arXiv 1512.00567),
    which is torch's `cross_entropy(..., label_smoothing=s)` of two classes.

    Args:
        smoothing: s, from 0 to 1.
    """
    target = label.to(logit.dtype) * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
