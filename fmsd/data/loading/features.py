"""Features of frames in place of their pixels, for a training of the last layer alone."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from fmsd.data.loading.sampler import Place
from fmsd.data.manifest import Manifest
from fmsd.types import Frames


class FeatureDataset(Dataset[Frames]):
    """Frames of a manifest whose `image` is the input of the detector's last layer.

    An index is a row number, or a `Place` of `fmsd.data.loading.sampler`.

    Args:
        domains: domain names in the order of their ids.
        feature: of each row.
        content: the digest of each row's file, see `fmsd.types.Frames`.
    """

    def __init__(
        self,
        manifest: Manifest,
        domains: Sequence[str],
        feature: Float[Tensor, "frames channels"],
        content: Int[Tensor, " frames"],
    ) -> None:
        self.feature, self.content = feature, content
        self.label = torch.from_numpy(manifest.table["label"].to_numpy().astype(np.int64))
        ids = {domain: index for index, domain in enumerate(domains)}
        self.domain = torch.tensor([ids[domain] for domain in manifest.table["domain"]])

    def __len__(self) -> int:
        return len(self.feature)

    def __getitem__(self, place: int | Place) -> Frames:
        row, domain = (
            (place[1], torch.tensor(place[2]))
            if isinstance(place, tuple)
            else (place, self.domain[place])
        )
        return Frames(
            self.feature[row], self.label[row], domain, torch.tensor(row), self.content[row]
        )
