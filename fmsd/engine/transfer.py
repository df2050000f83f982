"""The transfer of a batch to the device that computes."""

import torch

from fmsd.types import Frames


def to_device(batch: Frames, device: torch.device) -> Frames:
    """Moves pixels and labels of a batch; domains and rows are read on the CPU and stay there."""
    return batch._replace(
        image=batch.image.to(device, non_blocking=True),
        label=batch.label.to(device, non_blocking=True),
        strong=batch.strong.to(device, non_blocking=True),
    )
