"""From manifest rows to tensors; augmentation depends on (seed, epoch, row) alone, whatever the number of loader processes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from fmsd.data.image import read_image
from fmsd.data.manifest import Manifest
from fmsd.data.sampler import Place
from fmsd.data.transforms import transform
from fmsd.types import Frames


class FrameDataset(Dataset[Frames]):
    """Frames of a manifest, resized to `size` x `size` pixels.

    A place is a row number, or (epoch, row number, domain id) as the samplers of `fmsd.data.sampler` give it.

    Args:
        domains: domain names in the order of their ids.
        augment: name of the augmentation, see `fmsd.data.transforms`.
    """

    def __init__(self, manifest: Manifest, domains: Sequence[str], size: int, augment: str = "none", seed: int = 0) -> None:
        self.files = np.array([path.encode() for path in manifest.files()])  # one flat buffer: loader processes share it
        self.label = manifest.table["label"].to_numpy().astype(np.int64)
        ids = {domain: index for index, domain in enumerate(domains)}
        self.domain = np.array([ids[domain] for domain in manifest.table["domain"]], np.int64)
        self.transform = transform(augment, size)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int | Place) -> Frames:
        epoch, row, domain = place if isinstance(place, tuple) else (0, place, int(self.domain[place]))
        image = read_image(self.files[row].decode())
        self.transform.set_random_seed(int(np.random.SeedSequence([self.seed, epoch, row]).generate_state(1)[0]))
        pixels = self.transform(image=image)["image"]
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return Frames(tensor, torch.tensor(self.label[row]), torch.tensor(domain), torch.tensor(row))
