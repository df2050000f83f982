"""Features of frames and their places in a plane."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32

from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.manifest import Manifest
from fmsd.engine.datamodule import DataModule, domain_names
from fmsd.engine.transfer import to_device
from fmsd.models.detector import Detector
from fmsd.models.features import features_and_logits
from fmsd.types import Frames


def load_batches(model: Detector, data: DataModule, manifest: Manifest) -> Iterator[Frames]:
    """Yields the manifest's frames in its order, on the device of the model."""
    dataset = FrameDataset(manifest, domain_names(manifest), data.size)
    for batch in data.loader(dataset, None):
        yield to_device(batch, model.mean.device)


def embed(
    model: Detector, data: DataModule, manifest: Manifest
) -> tuple[Float32[np.ndarray, "frames width"], pl.DataFrame]:
    """The penultimate features of a manifest's frames, and a row for each with its logit."""
    pairs = [
        features_and_logits(model, batch.image) for batch in load_batches(model, data, manifest)
    ]
    vectors = torch.cat([vector for vector, _ in pairs]).cpu().numpy()
    logits = torch.cat([logit for _, logit in pairs]).cpu().numpy()
    rows = manifest.table.select("path", "dataset", "domain", "label")
    return vectors, rows.with_columns(logit=pl.Series(logits))


def tsne(
    vectors: Float32[np.ndarray, "frames width"], seed: int
) -> Float32[np.ndarray, "frames 2"]:
    """Places in a plane by t-SNE of 50 principal components.

    L. van der Maaten, G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    """
    from sklearn.decomposition import PCA  # noqa: PLC0415  of an extra
    from sklearn.manifold import TSNE  # noqa: PLC0415

    count = min(50, *vectors.shape)
    main = PCA(count, svd_solver="full", random_state=seed).fit_transform(vectors)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(main)
    return places.astype(np.float32)
