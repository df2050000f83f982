"""Features of frames, computed once and kept on disk, for trainings of the last layer alone.

Where nothing before the last layer of the head is trained, and every frame looks the same in every
epoch, its features never change. The backbone then runs once over the frames; all epochs, the
tests, and further trainings on these frames with other seeds, learning rates and heads run the last
layer alone. Losses, weights and predictions are those of a training that computes every feature
anew, bit by bit where a frame's features do not depend on the other frames of its batch.
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fmsd import tensor_cache
from fmsd.console import track
from fmsd.data.content_files import read_contents
from fmsd.data.manifest import Manifest
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.models.detector import FEATURE_DIMENSIONS, Detector
from fmsd.models.features import last_input_and_logits
from fmsd.optim.groups import trainable_parameters
from fmsd.tensor_cache import tensor_bytes
from fmsd.types import Frames

log = logging.getLogger(__name__)

FOLDER = "features"
"""The folder of the cache."""

PACKAGES = ("fmsd", "torch", "timm", "opencv-python-headless", "simplejpeg", "pillow")
"""Packages on whose versions features depend: they decode, resize and compute."""

NOISE_IMAGES = 2
"""Images whose features tell whether two backbones compute the same."""

Precision = Callable[[], AbstractContextManager[Any]]
"""The context of a forward pass."""

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A forward pass of images or of inputs of the last layer: those inputs, and the logits."""


def use_cached_features(
    model: Detector,
    base: str,
    data: DataModule,
    shown: int,
    device: torch.device,
    precision: Precision,
) -> bool:
    """Makes the loaders of `data` yield features in place of pixels, where they never change.

    A training so short that it does not show every frame of its split keeps its pixels: computing
    all features would take longer. So does a test dataset with a file that cannot be read.

    Args:
        model: adapted, on `device`, in training mode.
        base: the fingerprint of its weights before adaptation.
        shown: number of training frames that all steps show.

    Returns:
        Whether it does.

    Raises:
        InputError: a training or validation file cannot be read, or changes meanwhile.
    """
    unchanging = data.augment == "none" and data.strong is None
    if not unchanging or shown < len(data.splits.train) or not trains_last_layer(model):
        return False

    def forward(image: Tensor) -> tuple[Tensor, Tensor]:
        with precision():
            return last_input_and_logits(model, image.to(device, non_blocking=True))

    backbone = backbone_digest(model, base, data.size, forward)
    if backbone is None:
        return False
    features = functools.partial(load_or_compute, data, backbone, forward)
    data.features["train"] = features(data.splits.train, "training frames", full=True)
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
def backbone_digest(model: Detector, base: str, size: int, forward: Forward) -> str | None:
    """A digest of everything that the features of an image depend on.

    It holds the features of two images of noise: they differ wherever the device, the precision or
    an argument of the backbone makes a difference.

    Returns:
        None where features differ between two passes in training mode, as with dropout, or where
        the last layer does not take one vector per image, or is not the end of the network.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (NOISE_IMAGES, 3, size, size)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    passes = []
    for training in (True, True, False):
        model.train(training)
        passes.append(forward(noise))
    model.train()
    (first, logit), *others = passes
    if first.ndim != FEATURE_DIMENSIONS or not all(torch.equal(first, each) for each, _ in others):
        return None
    if not torch.equal(forward(first)[1], logit):
        return None
    about = {
        "weights": base,
        "modules": repr(model.backbone),
        "size": size,
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "noise": hashlib.sha256(tensor_bytes(first)).hexdigest(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    """The version of an installed package; empty for one that is not, as under another name."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def load_or_compute(
    data: DataModule,
    backbone: str,
    forward: Forward,
    manifest: Manifest,
    what: str,
    full: bool = False,
) -> tuple[Float[Tensor, "frames channels"], Int[Tensor, " frames"]]:
    """The features of a manifest's frames and the digests of their files, in its order.

    Args:
        backbone: see `backbone_digest`.
        what: the frames in words.
        full: all batches have `data.batch_size` images, as those of training.

    Raises:
        InputError: a file cannot be read, or changes meanwhile.
    """
    contents = manifest.table.select("path").join(
        read_contents(manifest), on="path", how="left", maintain_order="left"
    )
    expected = contents["content"].reinterpret(signed=True).to_numpy()
    digest = hashlib.sha256(f"{backbone} {data.batch_size} {full}".encode())
    digest.update(expected.tobytes())

    computed = False

    def compute() -> tuple[Tensor, Tensor]:
        nonlocal computed
        computed = True
        loader = data.loader(data.unaugmented(manifest), None)
        passes = track(loader, f"Features of {what}", len(loader), "batches")
        size = data.batch_size if full else 0
        feature, content = run_backbone(forward, passes, len(manifest), size)
        if changed := (content.numpy() != expected).sum():
            raise InputError(
                f"{changed} of the {what} are not what they were a moment ago",
                "start again when nothing changes them; if they lie in a pack, pack them anew",
            )
        return feature, content

    names = ("feature", "content")
    feature, content = tensor_cache.load_or_compute(FOLDER, digest.hexdigest(), names, compute)
    origin = "computed and kept" if computed else "those kept before"
    log.info("The features of the %d %s are %s.", len(manifest), what, origin)
    return feature, content


@torch.no_grad()
def run_backbone(
    forward: Forward, batches: Iterable[Frames], frames: int, size: int
) -> tuple[Float[Tensor, "frames channels"], Int[Tensor, " frames"]]:
    """The inputs of the last layer for batches in the order of their frames, and their contents.

    Args:
        frames: the number of frames.
        size: the least number of images in a pass; a smaller batch is filled up with its own
            images, because the size of a batch decides in which order some kernels add numbers.
    """
    feature, content = torch.empty(0), torch.empty(frames, dtype=torch.int64)
    done = 0
    for batch in batches:
        image, count = batch.image, len(batch.image)
        if count < size:
            image = image[torch.arange(size) % count]
        taken = forward(image)[0][:count].cpu()
        if not done:
            feature = torch.empty(frames, taken.shape[1], dtype=taken.dtype)
        feature[done : done + count], content[done : done + count] = taken, batch.content
        done += count
    return feature, content
