"""Explanation: pictures of where a run's detector looks, and of how its features lie."""

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.data.frame import REAL
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.manifest import Manifest, evenly_spaced
from fmsd.data.overrides import as_names
from fmsd.engine.datamodule import DataModule, moved
from fmsd.engine.trainer import TrainerFactory, alone
from fmsd.engine.weights import folded
from fmsd.errors import InputError
from fmsd.figures import explanations, style
from fmsd.figures.explanations import Tile
from fmsd.models.attribution import default_method, gradcam, rollout
from fmsd.models.detector import Detector
from fmsd.models.features import features_and_logits
from fmsd.ownership import check_replaceable
from fmsd.runs.folder import EXPLANATIONS, Run
from fmsd.tables import read_parquet_schema
from fmsd.types import Frames

log = logging.getLogger(__name__)

KINDS = {"rollout": "Attention rollout", "gradcam": "Grad-CAM"}
"""Ways to explain an image, and their names."""

ROWS = 24
"""A picture has heat maps of at most so many domains."""


def explain(
    run: Run,
    detector: Callable[[], Detector],
    data: DataModule,
    trainer: TrainerFactory,
    out: Path,
    images: int = 4,
    frames: int = 1500,
    how: str | None = None,
    layer: str | None = None,
    seed: int = 0,
    domains: int | Sequence[str | int] | None = None,
) -> None:
    """Writes `heatmaps.png`, `features.png` and, to draw that anew, `features.parquet` about the test datasets of `data` to `out`.

    Of several datasets each has its `heatmaps_DATASET.png`.

    Args:
        detector: makes the detector that the run began with.
        trainer: its first device is worked on.
        images: at most so many of each domain get a heat map, of as many videos.
        frames: at most so many have their features shown, the same number of each domain as far as
            it has them.
        how: `rollout` or `gradcam`; None for rollout where the backbone allows it.
        layer: the module of the backbone whose output Grad-CAM maps; None for the last one.
        seed: of the choice of images, and of t-SNE.
        domains: those that get heat maps; None for all, as far as a picture has rows.

    Raises:
        InputError: settings out of range, a backbone that cannot be explained this way, data that
            cannot be used, or files of others in `out`.
    """
    if how not in (None, *KINDS):
        raise InputError(f"how={how} is unknown", f"choose one of {', '.join(KINDS)}")
    if how == "rollout" and layer is not None:
        raise InputError(
            f"layer={layer} has no meaning for how=rollout, which follows all layers",
            "leave it out, or set how=gradcam",
        )
    if images < 1:
        raise InputError(f"images={images} is out of range", "give at least 1")
    if importlib.util.find_spec("sklearn") is None:
        raise InputError(
            "The picture of the features needs the package scikit-learn",
            "install it with: pip install 'fmsd[explain]'",
        )
    tests = data.tests
    pictures = {
        name: out / (f"heatmaps_{name}.png" if len(tests) > 1 else "heatmaps.png") for name in tests
    }
    if run.folder / EXPLANATIONS not in (out, *out.parents):
        files = [*pictures.values(), out / "features.parquet", out / "features.png"]
        check_replaceable(
            files,
            out / "features.parquet",
            _is_explanation,
            "fmsd explain",
            "give another folder as out=FOLDER",
        )
    shown = {
        name: picked(manifest, images, seed) for name, manifest in limited(tests, domains).items()
    }
    scattered = sampled(tests, frames)
    model = folded(run, detector).to(alone(trainer, out).strategy.root_device).eval()
    way = how or ("gradcam" if layer is not None else default_method(model))
    heat = rollout if way == "rollout" else lambda model, image: gradcam(model, image, layer)
    place = "" if layer is None else f" at {layer}"
    figures = {}
    for name, manifest in shown.items():
        title = (
            f"{KINDS[way]}{place}: {run.folder.name} on {name}\nNumbers: probability of "
            "fake.\nHeat: from each image's lowest value to its highest."
        )
        figures[pictures[name]] = explanations.plot_heatmaps(
            explained(model, heat, data, manifest, name), title
        )
    parts = [embedded(model, data, manifest) for manifest in scattered.values()]
    places = tsne(np.concatenate([width for width, _ in parts]), seed)
    points = pl.concat([table for _, table in parts]).with_columns(
        x=pl.Series(places[:, 0]), y=pl.Series(places[:, 1])
    )
    with atomic(
        out / "features.parquet"
    ) as partial:  # the first file: it tells whose the pictures beside it are
        points.write_parquet(partial)
    title = f"t-SNE of the penultimate features of {points.height} test frames: {run.folder.name}"
    style.write_png(explanations.plot_features(points, title), out / "features.png")
    for path, figure in figures.items():
        style.write_png(figure, path)
    print(f"The explanations lie in {out}")


def _is_explanation(path: Path) -> bool:
    return {"path", "domain", "logit", "x", "y"} <= set(read_parquet_schema(path))


def limited(
    tests: Mapping[str, Manifest], domains: int | Sequence[str | int] | None
) -> dict[str, Manifest]:
    """The datasets with no more domains than a picture has rows, real frames first, of those that are asked for; datasets without any are left out.

    Raises:
        InputError: a domain is in none of them.
    """
    domains = None if domains is None else as_names(domains, "domains")
    known = sorted({name for manifest in tests.values() for name in manifest.table["domain"]})
    if wrong := [name for name in domains or () if name not in known]:
        raise InputError(
            f"domains={wrong[0]} is in no test dataset", f"choose of {', '.join(known)}"
        )
    found = {}
    for dataset, manifest in tests.items():
        names = [own["domain"][0] for own in _by_domain(manifest.table)]
        names = [name for name in names if domains is None or name in domains]
        if len(names) > ROWS:
            left = len(names) - ROWS
            log.warning(
                "The heat maps of %s show %d domains and leave out %d; domains=[NAME,...] chooses "
                "them.",
                dataset,
                ROWS,
                left,
            )
        if names:
            found[dataset] = replace(
                manifest, table=manifest.table.filter(pl.col("domain").is_in(names[:ROWS]))
            )
    return found


def picked(manifest: Manifest, images: int, seed: int) -> Manifest:
    """Frames of at most `images` videos of each domain, real ones first: one drawn from each stretch of its videos in their order."""
    rng, rows = np.random.default_rng(seed), []
    table = manifest.table.with_row_index("row").sort("video", "index")
    for own in _by_domain(table):
        videos = own["video"].unique(maintain_order=True).to_list()
        for stretch in np.array_split(np.arange(len(videos)), min(images, len(videos))):
            rows.append(rng.choice(own.filter(video=videos[rng.choice(stretch)])["row"].to_numpy()))
    return replace(manifest, table=manifest.table[rows])


def sampled(tests: Mapping[str, Manifest], frames: int) -> dict[str, Manifest]:
    """At most `frames` frames over all datasets, equally many of each domain of each dataset as far as it has them, evenly over its videos.

    Raises:
        InputError: `frames` is less than the number of domains, or too few frames are left to
            place.
    """
    parts = {
        name: list(_by_domain(manifest.table.sort("video", "index")))
        for name, manifest in tests.items()
    }
    share = equal_share([own.height for domains in parts.values() for own in domains], frames)
    chosen = {
        name: replace(
            tests[name],
            table=pl.concat([own[evenly_spaced(own.height, share)] for own in domains])
            if share
            else tests[name].table[:0],
        )
        for name, domains in parts.items()
    }
    if not share or sum(map(len, chosen.values())) < 4:
        count = sum(map(len, parts.values()))
        raise InputError(
            f"frames={frames} leaves too few frames of {count} domains for a picture of their "
            "features",
            "raise it, or test on more frames",
        )
    return chosen


def equal_share(counts: Sequence[int], total: int) -> int:
    """The largest number such that taking at most so many of each takes at most `total` of all."""
    left, share = total, 0
    for place, count in enumerate(sorted(counts)):
        if count * (len(counts) - place) > left:
            return left // (len(counts) - place)
        left, share = left - count, count
    return share


def explained(
    model: Detector,
    heat: Callable[[Detector, Tensor], Tensor],
    data: DataModule,
    manifest: Manifest,
    dataset: str,
) -> list[Tile]:
    """The frames of a dataset's manifest under their heat maps."""
    tiles = []
    for batch in batches(model, data, manifest):
        maps, scores = (
            heat(model, batch.image).cpu().numpy(),
            torch.sigmoid(features_and_logits(model, batch.image)[1]).tolist(),
        )
        rows = manifest.table[batch.row.numpy()]
        for image, domain, label, score, own in zip(
            batch.image.cpu(), rows["domain"], rows["label"], scores, maps, strict=True
        ):
            tiles.append(
                Tile(f"{dataset}\n{domain}", label, score, image.permute(1, 2, 0).numpy(), own)
            )
    return tiles


def embedded(
    model: Detector, data: DataModule, manifest: Manifest
) -> tuple[Float32[np.ndarray, "frames width"], pl.DataFrame]:
    """The penultimate features of the manifest's frames, and a row for each of these: what it is and its logit."""
    found = [features_and_logits(model, batch.image) for batch in batches(model, data, manifest)]
    widths, logits = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return widths, manifest.table.select("path", "dataset", "domain", "label").with_columns(
        logit=pl.Series(logits)
    )


def batches(model: Detector, data: DataModule, manifest: Manifest) -> Any:
    """The manifest's frames in its order, where the model is."""
    dataset = FrameDataset(manifest, data.domain_names(manifest), data.size)
    batch: Frames
    for batch in data.loader(dataset, None):
        yield moved(batch, model.mean.device)


def tsne(
    vectors: Float32[np.ndarray, "frames width"], seed: int
) -> Float32[np.ndarray, "frames 2"]:
    """Places in a plane by t-SNE (L. van der Maaten, G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008) of 50 principal components."""
    from sklearn.decomposition import PCA  # noqa: PLC0415  of an extra
    from sklearn.manifold import TSNE  # noqa: PLC0415

    count = min(50, *vectors.shape)
    main = PCA(count, svd_solver="full", random_state=seed).fit_transform(vectors)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    return (
        TSNE(perplexity=perplexity, init="pca", random_state=seed)
        .fit_transform(main)
        .astype(np.float32)
    )


def _by_domain(table: pl.DataFrame) -> list[pl.DataFrame]:
    """The frames of each domain, real ones first."""
    names = sorted(table["domain"].unique(), key=lambda domain: (domain != REAL, domain))
    return [table.filter(domain=name) for name in names]
