"""Stored frames for detectors of other code: a file that cannot be read is an outcome, no error."""

from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from fmsd.data.content import content_digest
from fmsd.data.loading.dataset import FrameDataset, signed
from fmsd.data.loading.image import read_bytes
from fmsd.data.remote import FetchError
from fmsd.errors import InputError


class StoredFrame(NamedTuple):
    """A frame as it is stored; loaders make batches of them.

    Args:
        image: its RGB pixels, resized; zeros where the file cannot be decoded.
        row: its row number in the manifest.
        content: the digest of its bytes as a signed integer; 0 where there are none.
        stored: whether it has bytes.
        fault: why it cannot be decoded; empty where it can.
    """

    image: UInt8[Tensor, "3 height width"]
    row: int
    content: int
    stored: bool
    fault: str


class StoredFrames(Dataset[StoredFrame]):
    """The frames of a dataset, those that cannot be decoded included."""

    def __init__(self, frames: FrameDataset) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, row: int) -> StoredFrame:
        try:
            frame = self.frames[row]
        except FetchError:
            raise
        except InputError as error:
            size = self.frames.size
            black = torch.zeros(3, size, size, dtype=torch.uint8)
            content = self._content(row)
            return StoredFrame(black, row, content or 0, content is not None, str(error))
        return StoredFrame(frame.image, row, int(frame.content), True, "")

    def _content(self, row: int) -> int | None:
        """The digest of a file that cannot be decoded; None where there is no file."""
        try:
            return signed(content_digest(read_bytes(self.frames.files[row].decode())))
        except FetchError:
            raise
        except InputError:
            return None
