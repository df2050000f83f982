"""Evaluation: score the test datasets with a run's weights."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch
import polars as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from timm.layers.config import set_fused_attn, use_fused_attn
from torch.utils.data import DataLoader

from fmsd.data import manifest as manifests
from fmsd.data.corruptions import LEVELS, Corruption
from fmsd.data.manifest import Manifest
from fmsd.engine.callbacks import WholeFiles
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Scorer
from fmsd.engine.predictions import gather, joined
from fmsd.engine.processes import Processes, named
from fmsd.engine.stamp import stamped, stamps
from fmsd.errors import InputError
from fmsd.metrics.table import results, thresholds, videos, wide
from fmsd.models.detector import Detector
from fmsd.peft import adapter
from fmsd.peft.inject import fold
from fmsd.report import plots, publish
from fmsd.report.console import show as show_table
from fmsd.report.run import CORRUPTIONS, VALIDATION, Run, caption, claimed, provenance, read_results
from fmsd.tables import read_parquet
from fmsd.types import Frames

log = logging.getLogger(__name__)

CARRIED = (
    *("overrides", "choices", "seed", "selection", "monitor", "monitored", "origin", "epoch"),
    *("trainable", "parameters", "seconds", "merged"),
)
"""What an evaluation's record repeats of its run's."""


def evaluate(
    run: Run,
    detector: Callable[[], Detector],
    data: DataModule,
    trainer: Callable[..., Trainer],
    folder: Path,
    config: str,
    command: Sequence[str],
    corruptions: Sequence[Corruption] = (),
    logger: Mapping[str, publish.Factory] | None = None,
) -> Run:
    """Tests a run's weights on the test datasets of `data` and writes results and predictions to `folder`.

    Args:
        detector: makes the detector that the run began with.
        corruptions: under each of them everything is tested once more.
        logger: factories of the loggers of the run's training, by name; they get what it found that the run had not.

    Raises:
        InputError: the run is not finished, or the data cannot be used.
    """
    trained = run.record()
    if (run.folder / "results.csv").is_file():
        run.results()  # whose names are those of files
    evaluation = Run(folder)
    with claimed(evaluation, config, resumable=True):
        tests = data.tests
        for name, manifest in tests.items():
            before = trained["manifests"]["test"].get(name, {}).get("digest")
            if before is not None and before != manifest.digest():
                log.warning("%s is not what the run was tested on: other frames, splits or labels (see manifests in run.json).", name)
        record = {key: trained[key] for key in CARRIED if key in trained} | {"stamps": stamps(data, run.origin())}
        validation = run.folder / VALIDATION
        record["thresholds"] = thresholds(read_parquet(validation), data.video_score) if validation.is_file() else None
        worker = alone(trainer, folder)
        table = stress(evaluation, record, worker, folded(run, detector, worker), data, corruptions)
        if corruptions:
            record["corruptions"] = {name: LEVELS[name] for name, _ in corruptions}
        evaluation.write_record(
            record | provenance(command) | {"run": str(run.folder), "manifests": {"test": tested(tests)}, "skipped": data.skipped}
        )
        publish.extend(logger or {}, run, evaluation)
    show(table, f"AUC of {run.folder}", caption(record))
    if corruptions:
        show_robustness(read_results(folder / CORRUPTIONS))
    print(f"The evaluation lies in {folder}")
    return evaluation


def folded(run: Run, detector: Callable[[], Detector], trainer: Trainer | None = None) -> Detector:
    """The detector of a run as a plain timm model: its base with the adapter folded in.

    Args:
        trainer: what scores with it, if anything does.

    Raises:
        InputError: the run has no adapter, or `detector` makes another base.
    """
    lightning.pytorch.seed_everything(run.record()["seed"], workers=True, verbose=False)  # a backbone without pretrained weights follows from it
    model = detector() if trainer is None else built(detector, trainer)
    adapter.load(model, run.folder)
    fold(model.backbone)
    return model


def built(detector: Callable[[], Detector], trainer: Trainer) -> Detector:
    """The detector, without torch's fused attention where its backward pass is slow: bfloat16 on the CPU (benchmarks/attention.py).

    Tests are made as the training is, so that both give the same numbers.
    """
    before = use_fused_attn(), use_fused_attn(experimental=True)
    if trainer.strategy.root_device.type == "cpu" and trainer.precision == "bf16-mixed":
        set_fused_attn(False)
    try:
        return detector()
    finally:
        set_fused_attn(*before)


def tested(tests: Mapping[str, Manifest]) -> dict[str, dict[str, Any]]:
    """Digest and size of every test dataset, for the record."""
    return {name: manifests.summary(manifest)[name] for name, manifest in tests.items()}


def made(trainer: Callable[..., Trainer], **arguments: Any) -> Trainer:
    """The trainer, if it can be had and gives right numbers.

    Raises:
        InputError: settings that Lightning does not take, several processes by another strategy than ours, or 16-bit gradients
            without the range of bfloat16.
    """
    asked = getattr(trainer, "keywords", {})
    try:
        if SLURMEnvironment.detect() and "plugins" not in asked:  # Lightning would save in the middle of a step and resubmit by itself
            arguments["plugins"] = [SLURMEnvironment(auto_requeue=False)]
        worker = trainer(**arguments)
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"The trainer does not take its settings ({' '.join(str(error).split())})", "correct trainer.NAME=VALUE") from error
    if worker.world_size > 1 and not isinstance(worker.strategy, Processes):
        raise InputError(f"Training in {worker.world_size} processes needs trainer=ddp, which joins their gradients", "or set trainer.devices=1")
    check_precision(str(asked.get("precision", worker.precision)))  # a CPU takes another than asked for
    worker.strategy.checkpoint_io = WholeFiles()
    return worker


def check_precision(precision: str) -> None:
    """Refuses 16-bit training without the range of float32 in its gradients, and 16-bit weights.

    Raises:
        InputError: such a precision.
    """
    if precision in ("16", "16-mixed", "16-true", "bf16-true"):
        what = "round what learns to 8 bits" if precision == "bf16-true" else "scale the gradients that wrappers and clipping rely on"
        raise InputError(f"trainer.precision={precision} would {what}", "use bf16-mixed or 32-true")


def alone(trainer: Callable[..., Trainer], folder: Path) -> Trainer:
    """The trainer in a single process, in which everything is tested: the numbers then depend on no splitting."""
    devices = named(getattr(trainer, "keywords", {}).get("devices"))[:1] or 1
    return made(trainer, devices=devices, num_nodes=1, strategy="auto", logger=False, enable_checkpointing=False, default_root_dir=folder)


def test(run: Run, trainer: Trainer, detector: Detector, data: DataModule) -> pl.DataFrame:
    """Scores every test dataset once and writes predictions, dataset by dataset, and the result tables."""
    return stress(run, run.record(), trainer, detector, data, ())


def stress(
    run: Run, record: Mapping[str, Any], trainer: Trainer, detector: Detector, data: DataModule, corruptions: Sequence[Corruption]
) -> pl.DataFrame:
    """Tests as `test` does, and once more under every corruption; the results on clean images, which it returns, are written last.

    Args:
        record: what the run says about the choice of the weights, its thresholds and its stamps.
    """
    scorer = Scorer(detector)
    table = scored(run, record, trainer, scorer, data)
    if corruptions:
        parts = [table.with_columns(corruption=pl.lit("none"), severity=pl.lit(0))]
        for count, corruption in enumerate(corruptions, 1):
            log.info("Corruption %d of %d: %s, severity %d", count, len(corruptions), *corruption)
            found = scored(run, record, trainer, scorer, data, corruption)
            parts.append(found.with_columns(corruption=pl.lit(corruption.name), severity=pl.lit(corruption.severity)))
        robustness = pl.concat(parts)
        run.write(CORRUPTIONS, robustness.write_csv())
        plots.write(plots.robustness(robustness), run.folder / "robustness.png")
    run.write_results(table)
    return table


def scored(
    run: Run, record: Mapping[str, Any], trainer: Trainer, scorer: LightningModule, data: DataModule, corruption: Corruption | None = None
) -> pl.DataFrame:
    """The results on all test datasets, as they are or corrupted; writes the predictions of each."""
    folder, parts = "" if corruption is None else f"{corruption.name}_{corruption.severity}/", []
    for name, manifest in data.tests.items():
        parts.append(predict(trainer, scorer, data.test_loader(name, corruption), manifest))
        run.write_predictions(f"{folder}{name}", parts[-1])
    table = results(pl.concat(parts), record["selection"], data.protocol, data.naming, data.video_score, record["thresholds"])
    return stamped(table, record["stamps"])


def predict(trainer: Trainer, scorer: LightningModule, loader: DataLoader[Frames], manifest: Manifest) -> pl.DataFrame:
    """The manifest's rows with their logits, scored once through `trainer.predict`, whose sampler repeats no frame."""
    try:
        batches = trainer.predict(scorer, dataloaders=loader)
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from error
    return joined(manifest, gather(batches or []))  # pyright: ignore[reportArgumentType]


def show(table: pl.DataFrame, title: str, note: str) -> None:
    """Prints the AUC of every dataset, frames and videos apart, with the numbers of its videos."""
    aucs, sizes = wide(table), videos(table)
    rows = [[str(line[0]), *map(told, line[1:])] for line in aucs.rows()]
    show_table(title, [f"{name}\n{sizes[name]}" if name in sizes else name for name in aucs.columns], rows, note)


def show_robustness(table: pl.DataFrame) -> None:
    """Prints for each dataset the video AUC under every corruption, by severity, with their means."""
    aucs, sizes = table.filter(level="video", metric="auc"), videos(table)
    for (dataset,), own in aucs.group_by("dataset", maintain_order=True):
        clean = own.filter(severity=0)["value"].item()
        grid = own.filter(pl.col("severity") > 0).pivot("severity", index="corruption", values="value", maintain_order=True)
        grid = grid.with_columns(mean=pl.mean_horizontal(pl.exclude("corruption")))
        lines = [*grid.rows(), *grid.select(pl.lit("mean"), pl.exclude("corruption").mean()).rows()]
        rows = [[str(line[0]), *map(told, line[1:])] for line in lines]
        show_table(f"Video AUC on {dataset} by severity; clean {told(clean)}", grid.columns, rows, sizes[str(dataset)])


def told(value: float) -> str:
    """A number of a table."""
    return f"{value:.3f}"
