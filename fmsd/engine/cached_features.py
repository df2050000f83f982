"""Features of frames, computed once and kept on disk, for trainings of the last layer alone.

Where nothing before the last layer of the head is trained, and every frame looks the same in every
epoch, its features never change. The backbone then runs once over the frames; all epochs, the
tests, and further trainings on these frames with other seeds, learning rates and heads run the last
layer alone. Losses, weights and predictions are those of a training that computes every feature
anew, bit by bit where a frame's features do not depend on the other frames of its batch.
"""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fmsd import tensor_cache
from fmsd.console import track
from fmsd.data.content_files import read_contents
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.manifest import Manifest
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.models.detector import FEATURE_DIMENSIONS, Detector
from fmsd.models.features import last_input_and_logits
from fmsd.optim.groups import trainable_parameters
from fmsd.tensor_cache import tensor_bytes

log = logging.getLogger(__name__)

FOLDER = "features"
"""The folder of the cache."""

PACKAGES = ("fmsd", "torch", "timm", "opencv-python-headless", "simplejpeg", "pillow")
"""Packages on whose versions features depend: they decode, resize and compute."""

NOISE_IMAGES = 2
"""Images whose features tell whether two backbones compute the same."""

Precision = Callable[[], AbstractContextManager[Any]]
"""The context of a forward pass."""


def use_cached_features(
    model: Detector, base: str, data: DataModule, device: torch.device, precision: Precision
) -> bool:
    """Makes the loaders of `data` yield features in place of pixels, where they never change.

    A test dataset with a file that cannot be read keeps its pixels.

    Args:
        model: adapted, on `device`, in training mode.
        base: the fingerprint of its weights before adaptation.

    Returns:
        Whether it does.

    Raises:
        InputError: a training or validation file cannot be read.
    """
    if data.augment != "none" or data.strong is not None or not trains_last_layer(model):
        return False
    backbone = backbone_digest(model, base, data.size, device, precision)
    if backbone is None:
        return False

    def features(manifest: Manifest, what: str) -> tuple[Tensor, Tensor]:
        return load_or_compute(manifest, what, backbone, model, data, device, precision)

    data.features["train"] = features(data.splits.train, "training frames")
    data.features["val"] = features(data.splits.validation, "validation frames")
    for name, manifest in data.tests.items():
        try:
            data.features[f"test/{name}"] = features(manifest, f"test frames of {name}")
        except InputError as error:
            log.info("The features of %s are not kept: %s.", name, error.message)
    return True


def trains_last_layer(model: Detector) -> bool:
    """Whether no parameter before the last layer of the head is trained."""
    last = model.last_layer()
    trained = set(trainable_parameters(model))
    return last is not None and trained <= set(last.parameters())


@torch.no_grad()
def backbone_digest(
    model: Detector, base: str, size: int, device: torch.device, precision: Precision
) -> str | None:
    """A digest of everything that the features of an image depend on.

    It holds the features of two images of noise: they differ wherever the device, the precision or
    an argument of the backbone makes a difference.

    Returns:
        None where features differ between two passes in training mode, as with dropout, or where
        the last layer does not take one vector per image, or is not the end of the network.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (NOISE_IMAGES, 3, size, size)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    passes = []
    for training in (True, True, False):
        model.train(training)
        with precision():
            passes.append(last_input_and_logits(model, noise))
    model.train()
    (first, logit), *others = passes
    if first.ndim != FEATURE_DIMENSIONS or not all(torch.equal(first, each) for each, _ in others):
        return None
    with precision():
        if not torch.equal(model(first), logit):
            return None
    about = {
        "weights": base,
        "modules": repr(model.backbone),
        "size": size,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "noise": hashlib.sha256(tensor_bytes(first)).hexdigest(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def load_or_compute(
    manifest: Manifest,
    what: str,
    backbone: str,
    model: Detector,
    data: DataModule,
    device: torch.device,
    precision: Precision,
) -> tuple[Float[Tensor, "frames channels"], Int[Tensor, " frames"]]:
    """The features of a manifest's frames and the digests of their files, in its order.

    Args:
        what: the frames in words.
        backbone: see `backbone_digest`.
    """
    contents = manifest.table.select("path").join(
        read_contents(manifest), on="path", how="left", maintain_order="left"
    )
    digest = hashlib.sha256(f"{backbone} {data.batch_size}".encode())
    digest.update(contents["content"].to_numpy().tobytes())
    feature, content = tensor_cache.load_or_compute(
        FOLDER,
        digest.hexdigest(),
        ("feature", "content"),
        lambda: compute(data.unaugmented(manifest), what, model, data, device, precision),
    )
    return feature, content


@torch.no_grad()
def compute(
    frames: FrameDataset,
    what: str,
    model: Detector,
    data: DataModule,
    device: torch.device,
    precision: Precision,
) -> tuple[Float[Tensor, "frames channels"], Int[Tensor, " frames"]]:
    """Runs the backbone over frames in their order, in batches of `data.batch_size`."""
    features, contents = [], []
    loader = data.loader(frames, None)
    for batch in track(loader, f"Features of {what}", len(loader), "batches"):
        with precision():
            taken, _ = last_input_and_logits(model, batch.image.to(device, non_blocking=True))
        features.append(taken.cpu())
        contents.append(batch.content)
    return torch.cat(features), torch.cat(contents)
