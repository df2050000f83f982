"""Test frames of which some cannot be read: those are left out of their batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.remote import FetchError
from fmsd.errors import InputError
from fmsd.types import Frames


class ReadableFrames(Dataset[Any]):
    """The frames of a dataset, and None in place of those that cannot be read."""

    def __init__(self, frames: FrameDataset) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, place: int) -> Frames | None:
        try:
            return self.frames[place]
        except FetchError:
            raise
        except InputError:
            return None


def collate_readable(frames: Sequence[Frames | None]) -> Frames:
    """A batch of the frames that could be read; of none, an empty batch."""
    read = [frame for frame in frames if frame is not None]
    if read:
        return default_collate(read)
    none = torch.empty(0, dtype=torch.int64)
    return Frames(torch.empty(0, 3, 1, 1, dtype=torch.uint8), none, none, none, none)
