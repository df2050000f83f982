"""A detector in torch as a scorer of face crops, with the features and heat maps of its crops."""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from fmsd.data.loading.resizing import resize
from fmsd.inference.crop_scoring import Crops, CropScores
from fmsd.inference.familiarity import FeatureBank
from fmsd.inference.outcome import SuspiciousFace
from fmsd.models.attribution import default_method, gradcam, rollout
from fmsd.models.detector import Detector
from fmsd.models.features import features_and_logits

MAP_NAMES = {"rollout": "attention rollout", "gradcam": "Grad-CAM"}
"""The names of the methods of attribution, for people."""


@dataclass(frozen=True)
class TorchScorer:
    """Scores face crops with a detector.

    Args:
        detector: with its adapter folded in, in evaluation mode, on its device.
        size: side in pixels of the images that it takes.
        bank: features of validation frames; None where there are none.
        precision: a context of the forward pass, for example autocast.
    """

    detector: Detector
    size: int
    bank: FeatureBank | None = None
    precision: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext

    def images(self, crops: Sequence[ndarray]) -> Tensor:
        """The crops as the loaders of a test give them to the network, on its device."""
        resized = np.stack([resize(crop, self.size) for crop in crops])
        planes = torch.from_numpy(np.ascontiguousarray(resized.transpose(0, 3, 1, 2)))
        return planes.to(self.detector.mean.device)

    def __call__(self, crops: Crops) -> CropScores:
        """The scores of RGB crops of any one size."""
        images = self.images(list(crops))
        with torch.inference_mode(), self.precision():
            if self.bank is None:
                features, logit = None, self.detector(images).float()
            else:
                features, logit = features_and_logits(self.detector, images)
        score = torch.sigmoid(logit.double()).cpu().numpy()
        if features is None or self.bank is None:
            return CropScores(score, np.full(len(score), np.nan))
        distance = self.bank.distance(features.float().cpu().numpy())
        return CropScores(score, distance.astype(np.float64))

    @property
    def map_name(self) -> str:
        """What `heat` draws."""
        return MAP_NAMES[default_method(self.detector)]

    def heat(self, faces: Sequence[SuspiciousFace]) -> list[Float[ndarray, "rows columns"]]:
        """The attribution map of each face, as `fmsd explain` draws them: of any size, from 0.

        Raises:
            InputError: the backbone cannot be explained.
        """
        method = rollout if default_method(self.detector) == "rollout" else gradcam
        return [
            method(self.detector, self.images([face.crop]))[0].float().cpu().numpy()
            for face in faces
        ]
