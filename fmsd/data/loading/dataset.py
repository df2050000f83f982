"""From manifest rows to tensors.

Augmentation depends on (seed, epoch, row, occurrence) alone, whatever the number of processes.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from fmsd.data.content import content_digest
from fmsd.data.loading import blending
from fmsd.data.loading.corruptions import Corruption, corrupt, frame_seed
from fmsd.data.loading.image import decode, read_bytes
from fmsd.data.loading.resizing import resize
from fmsd.data.loading.sampler import Place
from fmsd.data.loading.transforms import build_transform, with_generator
from fmsd.data.manifest import Manifest
from fmsd.data.processes import prepare_fork
from fmsd.types import NO_VIEW, Frames

STRONG = 1
"""Keeps the random stream of the strong view apart from that of the first."""


class FrameDataset(Dataset[Frames]):
    """Frames of a manifest, resized to `size` x `size` pixels.

    With `strong`, a frame also has a second view, of the same image (with self-blending, of the
    same blend) and from random numbers of its own: the first view is equal with and without it.

    An index is a row number, or a `Place` of `fmsd.data.loading.sampler`. A row that occurs several
    times in an epoch is augmented anew each time.

    Args:
        domains: domain names in the order of their ids.
        size: height and width in pixels.
        augment: name of the augmentation, see `fmsd.data.loading.transforms`.
        strong: name of the augmentation of a second view of each frame; None for no such view.
        corruption: applied to the stored images before they are resized.
        ahead: called with the epoch and the row of each frame before it is read.
    """

    def __init__(
        self,
        manifest: Manifest,
        domains: Sequence[str],
        size: int,
        augment: str = "none",
        seed: int = 0,
        corruption: Corruption | None = None,
        strong: str | None = None,
        ahead: Callable[[int, int], None] | None = None,
    ) -> None:
        prepare_fork()  # OpenCV's threads must end in the parent before loader processes fork
        # one flat buffer, which loader processes share
        self.files = np.array([path.encode() for path in manifest.files()])
        self.label = manifest.table["label"].to_numpy().astype(np.int64)
        ids = {domain: index for index, domain in enumerate(domains)}
        self.domain = np.array([ids[domain] for domain in manifest.table["domain"]], np.int64)
        self.transform = None if augment == "none" else build_transform(augment, size)
        self.strong_transform = None if strong is None else build_transform(strong, size, "strong")
        self.size = size
        self.ahead = ahead
        sbi = augment == blending.SBI
        self.blended = (manifest.table["domain"] == blending.SBI).to_numpy() & sbi
        self.seed = seed
        self.corruption = corruption
        self.frame_seeds = np.array(
            [frame_seed(path) for path in manifest.table["path"]] if corruption else [], np.uint64
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int | Place) -> Frames:
        epoch, row, domain, occurrence = (
            place if isinstance(place, tuple) else (0, place, int(self.domain[place]), 0)
        )
        if self.ahead is not None:
            self.ahead(epoch, row)
        path = self.files[row].decode()
        stored = read_bytes(path)
        image = decode(stored, path)
        if self.corruption is not None:
            image = corrupt(image, *self.corruption, seed=int(self.frame_seeds[row]))
        strong = None
        seed = [self.seed, epoch, row]
        if self.transform is None:
            first = resize(image, self.size)
        else:
            # the first occurrence has no number: recorded results were drawn without one
            rng = np.random.default_rng([*seed, occurrence] if occurrence else seed)
            if self.blended[row]:
                faces = blending.face_outlines(path, *image.shape[:2])
                image = blending.self_blend(image, faces, rng)
            first = with_generator(self.transform, rng)(image=image)["image"]
        if self.strong_transform is not None:
            entropy = np.random.SeedSequence([*seed, occurrence], spawn_key=(STRONG,))
            rng = np.random.default_rng(entropy)
            strong = with_generator(self.strong_transform, rng)(image=image)["image"]
        return Frames(
            self.planes(first),
            torch.tensor(self.label[row]),
            torch.tensor(domain),
            torch.tensor(row),
            torch.tensor(signed(content_digest(stored))),
            NO_VIEW if strong is None else self.planes(strong),
        )

    def planes(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[Tensor, "3 height width"]:
        """The colours of an image apart, as a tensor."""
        planes = np.empty((3, self.size, self.size), np.uint8)
        cv2.split(image, list(planes))  # six times as fast as transposing
        return torch.from_numpy(planes)


def signed(digest: int) -> int:
    """The signed integer of the same 64 bits: torch's collation knows no other."""
    return digest - (digest >> 63 << 64)
