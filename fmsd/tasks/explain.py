"""Explanation: heat maps of a run's detector, and a picture of its features."""

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.checks import check_choice, check_range
from fmsd.data.manifest import Manifest
from fmsd.data.samples import choose_frames, choose_images, limit_domains
from fmsd.engine.datamodule import DataModule
from fmsd.engine.detectors import load_folded_detector
from fmsd.engine.embedding import embed, load_batches, tsne
from fmsd.engine.trainer import TrainerFactory, single_process_trainer
from fmsd.errors import InputError
from fmsd.figures import explanations, style
from fmsd.figures.explanations import Tile
from fmsd.hub_addresses import title_name
from fmsd.models.attribution import default_method, gradcam, rollout
from fmsd.models.detector import Detector
from fmsd.models.features import features_and_logits
from fmsd.ownership import check_replaceable
from fmsd.runs.folder import EXPLANATIONS, Run
from fmsd.runs.integrity import DETECTOR_FILES
from fmsd.tables import read_parquet_schema

log = logging.getLogger(__name__)

ATTRIBUTIONS = {"rollout": "Attention rollout", "gradcam": "Grad-CAM"}
"""Ways to explain an image, and their titles."""

FINE_CELLS = 7
"""Rows and columns below which a map is said to be coarse."""

HeatMap = Callable[[Detector, Tensor], Tensor]
"""The attribution map of each image of a batch."""


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
    by_dataset: bool = False,
) -> None:
    """Writes heat maps and a t-SNE of the features of the test datasets to `out`.

    `heatmaps.png` (of several datasets `heatmaps_DATASET.png` each), `features.png`, and the table
    that it is drawn from as `features.parquet`.

    Args:
        detector: builds the detector that the run began with.
        trainer: its first device is used.
        images: largest number of heat maps of each domain, each of another video.
        frames: largest number of frames whose features are shown, equally many of each domain.
        how: `rollout` or `gradcam`; None for rollout where the backbone allows it.
        layer: the module of the backbone whose output Grad-CAM maps; None for the last one.
        seed: of the choice of images, and of t-SNE.
        domains: those that get heat maps; None for all, as far as a picture has rows.
        by_dataset: write into a folder in `out` that is named after the test datasets.

    Raises:
        InputError: settings out of range, a file of the run that its record does not know, a
            backbone that cannot be explained this way, data that cannot be used, or files of others
            in `out`.
    """
    check_explain_settings(how, layer, images)
    run.check(*DETECTOR_FILES)
    data.load("tests")
    tests = data.tests
    if by_dataset:
        out /= "_".join(tests)
    pictures = {
        name: out / (f"heatmaps_{name}.png" if len(tests) > 1 else "heatmaps.png") for name in tests
    }
    if run.folder / EXPLANATIONS not in (out, *out.parents):
        check_outputs([*pictures.values(), out / "features.parquet", out / "features.png"], out)
    shown = {
        name: choose_images(manifest, images, seed)
        for name, manifest in limit_domains(tests, domains).items()
    }
    scattered = choose_frames(tests, frames)
    device = single_process_trainer(trainer, out).strategy.root_device
    model = load_folded_detector(run, detector).to(device).eval()
    kind = how or ("gradcam" if layer is not None else default_method(model))
    heat = rollout if kind == "rollout" else lambda model, image: gradcam(model, image, layer)
    tiles = {
        name: heat_tiles(model, heat, data, manifest, name) for name, manifest in shown.items()
    }
    coarse = coarse_sentence(next(iter(tiles.values()))[0].heat.shape)
    what = ATTRIBUTIONS[kind] + ("" if layer is None else f" at {layer}")
    figures = {
        pictures[name]: explanations.plot_heatmaps(
            own, heatmap_title(f"{what}: {title_name(run.folder)} on {name}", coarse)
        )
        for name, own in tiles.items()
    }
    points = feature_points(model, data, scattered, seed)
    # the first file that is written: it marks the pictures beside it as this verb's own
    with atomic(out / "features.parquet") as partial:
        points.write_parquet(partial)
    title = (
        f"t-SNE of the penultimate features of {points.height} test frames: "
        f"{title_name(run.folder)}"
    )
    style.write_png(explanations.plot_features(points, title), out / "features.png")
    for path, figure in figures.items():
        style.write_png(figure, path)
    if coarse:
        log.warning(coarse)
    print(f"The explanations lie in {out}")


def heatmap_title(what: str, coarse: str) -> str:
    """The title of a picture of heat maps.

    Args:
        coarse: see `coarse_sentence`.
    """
    lines = (
        what,
        "Numbers: probability of fake.",
        "Heat: from each image's lowest value to its highest.",
        *([coarse] if coarse else []),
    )
    return "\n".join(lines)


def coarse_sentence(cells: Sequence[int]) -> str:
    """A sentence on maps that are too coarse to tell parts of a face apart; empty for others.

    Args:
        cells: rows and columns of the map.
    """
    if min(cells) >= FINE_CELLS:
        return ""
    return (
        f"The maps have {' x '.join(map(str, cells))} cells, fewer than {FINE_CELLS} x "
        f"{FINE_CELLS}: they do not tell parts of a face apart."
    )


def check_explain_settings(how: str | None, layer: str | None, images: int) -> None:
    """Refuses settings out of range, and a missing scikit-learn.

    Raises:
        InputError: a setting is unknown, out of range or without a meaning, or scikit-learn is
            missing.
    """
    if how is not None:
        check_choice("how", how, ATTRIBUTIONS)
    if how == "rollout" and layer is not None:
        raise InputError(
            f"layer={layer} has no meaning for how=rollout, which follows all layers",
            "leave it out, or set how=gradcam",
        )
    check_range("images", images, 1)
    if importlib.util.find_spec("sklearn") is None:
        raise InputError(
            "The picture of the features needs the package scikit-learn",
            "install it with: pip install 'fmsd[explain]'",
        )


def check_outputs(files: Sequence[Path], out: Path) -> None:
    """Refuses to replace files in `out` that `explain` did not write.

    Raises:
        InputError: a file of another writer would be replaced.
    """
    check_replaceable(
        files,
        out / "features.parquet",
        _is_explanation,
        "fmsd explain",
        "give another folder as out=FOLDER",
    )


def _is_explanation(path: Path) -> bool:
    return {"path", "domain", "logit", "x", "y"} <= set(read_parquet_schema(path))


def heat_tiles(
    model: Detector, heat: HeatMap, data: DataModule, manifest: Manifest, dataset: str
) -> list[Tile]:
    """The frames of a dataset's manifest with their heat maps and scores."""
    tiles = []
    for batch in load_batches(model, data, manifest):
        maps = heat(model, batch.image).cpu().numpy()
        scores = torch.sigmoid(features_and_logits(model, batch.image)[1]).tolist()
        rows = manifest.table[batch.row.numpy()]
        columns = (batch.image.cpu(), rows["domain"], rows["label"], scores, maps)
        for image, domain, label, score, heat_map in zip(*columns, strict=True):
            pixels = image.permute(1, 2, 0).numpy()
            tiles.append(Tile(f"{dataset}\n{domain}", label, score, pixels, heat_map))
    return tiles


def feature_points(
    model: Detector, data: DataModule, manifests: Mapping[str, Manifest], seed: int
) -> pl.DataFrame:
    """A row for each frame of some datasets: its origin, its logit and its place (`x`, `y`)."""
    parts = [embed(model, data, manifest) for manifest in manifests.values()]
    places = tsne(np.concatenate([vectors for vectors, _ in parts]), seed)
    return pl.concat([rows for _, rows in parts]).with_columns(
        x=pl.Series(places[:, 0]), y=pl.Series(places[:, 1])
    )
