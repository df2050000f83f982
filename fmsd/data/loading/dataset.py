"""From manifest rows to tensors; augmentation depends on (seed, epoch, row, occurrence) alone, whatever the number of processes."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from fmsd.data.loading import blending
from fmsd.data.loading.corruptions import Corruption, corrupt, frame_seed
from fmsd.data.loading.image import read_image, resize
from fmsd.data.loading.sampler import Place
from fmsd.data.loading.transforms import build_transform, with_generator
from fmsd.data.manifest import Manifest
from fmsd.types import Frames


class FrameDataset(Dataset[Frames]):
    """Frames of a manifest, resized to `size` x `size` pixels.

    A place is a row number, or (epoch, row number, domain id, occurrence) as the samplers of
    `fmsd.data.loading.sampler` give it. Each time that an epoch shows a row it is augmented anew.

    Args:
        domains: domain names in the order of their ids.
        augment: name of the augmentation, see `fmsd.data.loading.transforms`.
        corruption: what befalls the stored images before they are resized.
    """

    def __init__(
        self,
        manifest: Manifest,
        domains: Sequence[str],
        size: int,
        augment: str = "none",
        seed: int = 0,
        corruption: Corruption | None = None,
    ) -> None:
        self.files = np.array(
            [path.encode() for path in manifest.files()]
        )  # one flat buffer: loader processes share it
        self.label = manifest.table["label"].to_numpy().astype(np.int64)
        ids = {domain: index for index, domain in enumerate(domains)}
        self.domain = np.array([ids[domain] for domain in manifest.table["domain"]], np.int64)
        self.transform = None if augment == "none" else build_transform(augment, size)
        self.size = size
        self.blended = (manifest.table["domain"] == blending.SBI).to_numpy() & (
            augment == blending.SBI
        )
        self.seed = seed
        self.corruption = corruption
        self.drawn = np.array(
            [frame_seed(path) for path in manifest.table["path"]] if corruption else [], np.uint64
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int | Place) -> Frames:
        epoch, row, domain, turn = (
            place if isinstance(place, tuple) else (0, place, int(self.domain[place]), 0)
        )
        path = self.files[row].decode()
        image = read_image(path)
        if self.corruption is not None:
            image = corrupt(image, *self.corruption, seed=int(self.drawn[row]))
        if self.transform is None:
            image = resize(image, self.size)
        else:
            rng = np.random.default_rng(
                [self.seed, epoch, row, turn] if turn else [self.seed, epoch, row]
            )
            if self.blended[row]:
                image = blending.self_blend(
                    image, blending.face_outlines(path, *image.shape[:2]), rng
                )
            image = with_generator(self.transform, rng)(image=image)["image"]
        planes = np.empty((3, self.size, self.size), np.uint8)
        cv2.split(image, list(planes))  # six times as fast as transposing
        return Frames(
            torch.from_numpy(planes),
            torch.tensor(self.label[row]),
            torch.tensor(domain),
            torch.tensor(row),
        )


def start_worker(rank: int) -> None:
    """Prepares a loader process: OpenCV works in one thread, as the processes are the parallelism."""
    cv2.setNumThreads(0)
