"""The AUC of every specialist and of their merge on every forgery."""

from collections.abc import Iterable, Sequence

import polars as pl

from fmsd.engine.datamodule import DataModule
from fmsd.engine.merge_search import load_tensors
from fmsd.engine.scorer import Scorer
from fmsd.engine.scoring import predict
from fmsd.engine.trainer import Trainer
from fmsd.metrics.table import results_by_domain
from fmsd.models.detector import Detector
from fmsd.peft.experts import MERGED, Expert
from fmsd.runs.folder import Run
from fmsd.tables import read_parquet


def domain_table(
    run: Run,
    experts: Sequence[Expert],
    names: Iterable[str],
    model: Detector,
    data: DataModule,
    trainer: Trainer,
) -> pl.DataFrame:
    """Returns the AUC of every specialist and of the merge on every forgery.

    Predictions of a specialist's run are reused if it was tested on the same frames; otherwise the
    specialist is tested now.

    Args:
        run: the run of the merge, with its predictions.
        names: the merged tensors.
        model: a network for the specialists' weights, which are written into it.
    """
    names, tables = list(names), []
    for expert in experts:
        record = Run(expert.path).record() if expert.path.is_dir() else {"manifests": {"test": {}}}
        tested, loaded = record["manifests"]["test"], False
        for name, manifest in data.tests.items():
            file = expert.path / "predictions" / f"{name}.parquet"
            if tested.get(name, {}).get("digest") == manifest.digest() and file.is_file():
                predictions = read_parquet(file)
            else:
                if not loaded:
                    load_tensors(model, ((part, expert.state[part]) for part in names))
                    loaded = True
                predictions = predict(trainer, Scorer(model), data.test_loader(name), manifest)
            tables.append(_auc_by_domain(predictions, data, expert.label))
    for name in data.tests:
        predictions = read_parquet(run.folder / "predictions" / f"{name}.parquet")
        tables.append(_auc_by_domain(predictions, data, MERGED))
    return pl.concat(tables)


def _auc_by_domain(predictions: pl.DataFrame, data: DataModule, label: str) -> pl.DataFrame:
    table = results_by_domain(
        predictions, data.selection.naming, data.selection.video_score, metrics=("auc",)
    )
    return table.with_columns(detector=pl.lit(label))
