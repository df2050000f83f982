"""What a merge reads and writes around the merger: its experts, its weights, record and results."""

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from fmsd.console import progress
from fmsd.data.content import pixels_digest
from fmsd.engine.datamodule import DataModule
from fmsd.engine.merge_search import load_tensors
from fmsd.engine.predictions import with_expected
from fmsd.engine.scorer import Scorer
from fmsd.engine.scoring import predict
from fmsd.engine.stamp import Facts
from fmsd.engine.trainer import Trainer, seed_everything
from fmsd.errors import InputError
from fmsd.figures.merges import cosine_matrix, draw_merge
from fmsd.merge.record import RECORD, core_merger, known_grams, log_truncations, tensor_records
from fmsd.merge.task_vectors import Merger, Specialists, StateDict, merge_tensors
from fmsd.metrics.coverage import REFUSE, cover
from fmsd.metrics.table import results_by_domain
from fmsd.models.detector import Detector, meta_detector
from fmsd.peft import adapter
from fmsd.peft.experts import (
    MERGED,
    Expert,
    base_weights,
    check_distance,
    identities,
    open_experts,
)
from fmsd.peft.parts import changed_parts
from fmsd.runs.folder import Run
from fmsd.runs.predictions import read_predictions
from fmsd.state import write_state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What a merge reads.

    Args:
        empty: the detector on the meta device.
        base: name, arguments and hash of the base weights.
        experts: the specialists.
        specialists: their task vectors, with Gram matrices.
        ceiling: record of the cosine between two seeds of one specialist; None if not requested.
    """

    empty: Detector
    base: dict[str, Any]
    experts: list[Expert]
    specialists: Specialists
    ceiling: dict[str, Any] | None


def initialise(detector: Callable[..., Detector], seed: int) -> Detector:
    """Builds the detector that the experts were trained from, seeding random initial weights."""
    seed_everything(seed)
    return detector()


def read_inputs(
    detector: Callable[..., Detector],
    experts: Sequence[Path],
    folder: Path,
    seed: int,
    before: Mapping[str, Any] | None,
    ceiling: Sequence[Path] | None,
) -> Inputs:
    """Opens base and experts, computes the Gram matrices, and checks what can be merged.

    Args:
        detector, experts, seed, before, ceiling: as in `fmsd.tasks.merge.merge`.
        folder: for temporary files.

    Raises:
        InputError: the experts cannot be merged.
    """
    empty = meta_detector(detector)
    weights = base_weights(detector, empty, partial(initialise, detector, seed))
    arguments = dict(detector.keywords)  # pyright: ignore[reportFunctionMemberAccess]
    base_hash = adapter.fingerprint(empty, weights)
    base = {"name": arguments["name"], "backbone": arguments, "hash": base_hash}
    for path in experts:
        if path.is_dir():
            Run(path).record(complete=True)  # raises if the folder is no run
    opened = open_experts(experts, weights, base_hash, empty)
    parts = changed_parts(empty, set.union(*(expert.changed_names for expert in opened)))
    labels = [expert.label for expert in opened]
    specialists = Specialists(
        weights, [expert.state for expert in opened], parts, labels, tmpdir=folder
    )
    if before is not None:
        files = [(expert.path, expert.sha256) for expert in opened[:-1]]
        grams = known_grams(before, base_hash, files, specialists.names)
        specialists = dataclasses.replace(specialists, known_gram=grams)
    with progress("Comparing", len(specialists.names)) as tick:
        grams = dataclasses.replace(specialists, on_read=tick).gram
    specialists = dataclasses.replace(specialists, known_gram=grams)
    check_distance(specialists, opened)
    if ceiling is None:
        return Inputs(empty, base, opened, specialists, None)
    seeds = open_experts(ceiling, weights, base_hash, empty)
    return Inputs(empty, base, opened, specialists, seed_cosine(seeds, specialists))


def seed_cosine(seeds: Sequence[Expert], specialists: Specialists) -> dict[str, Any]:
    """The record of the cosine between the task vectors of two seeds of one specialist.

    Args:
        seeds: the two trainings.
        specialists: of the merge, whose tensors are compared.

    Raises:
        InputError: a training began from another base, or did not change the merged tensors.
    """
    states, labels = [seed.state for seed in seeds], [seed.label for seed in seeds]
    pair = Specialists(specialists.base, states, specialists.parts, labels)
    check_distance(pair, seeds)
    cosine = float(cosine_matrix(pair.gram.sum(0))[0, 1])
    if math.isnan(cosine):
        raise InputError(
            f"{labels[0]} or {labels[1]} did not change the tensors that are merged",
            "leave ceiling= out",
        )
    log.info(
        "The cosine between two seeds of one specialist is %s, the ceiling of those between the "
        "experts.",
        f"{cosine:z.2f}",
    )
    return {"experts": identities(seeds), "cosine": cosine}


def merged_origin(experts: Sequence[Path], selection: str) -> Facts:
    """The facts of the experts' trainings, joined by `+` where they differ.

    Files of weights have no facts: their training data is `unknown`. If an expert was selected by
    another rule than `iid`, the selection names that rule too: a merge of what the test data
    selected is selected by the test data.

    Args:
        experts: folders of runs, or files of weights.
        selection: how the merger's coefficients were selected.
    """
    known = [Run(path).origin() for path in experts if path.is_dir()]
    train = [name_and_digest for one in known for name_and_digest in one["train"].items()]
    if len(known) < len(experts):
        train.append(("unknown", ""))
    rules = join_labels(one["selection"] for one in known)
    frames = join_labels(one["train_frames"] for one in known if "train_frames" in one)
    return {
        "selection": selection if rules in ("", "iid") else f"{selection} of {rules}",
        "augment": join_labels(one["augment"] for one in known),
        "train": {
            name: join_labels(digest for other, digest in train if other == name and digest)
            for name in sorted({name for name, _ in train})
        },
        "left_out": join_labels(one["left_out"] for one in known if one["left_out"]) or None,
        **({"train_frames": frames} if frames else {}),
    }


def join_labels(labels: Iterable[str]) -> str:
    """The sorted union of `+`-joined labels, joined by `+`."""
    return "+".join(sorted({part for label in labels for part in label.split("+")}))


def write_merge(
    run: Run, inputs: Inputs, merger: Merger, name: str, search: Mapping[str, Any] | None
) -> None:
    """Writes the merged weights, `merge.json` and the pictures of the merge.

    Args:
        name: of the merger.
        search: record of the search that chose the coefficients; None if they were given.
    """
    specialists, ceiling = inputs.specialists, inputs.ceiling
    described = core_merger(merger)
    core = described.core(specialists)
    warnings = core.warnings(specialists.labels)
    if described is merger:
        for warning in warnings:
            log.warning("%s; see cosines.png and spectrum.png.", warning)
    merged = write_merged_weights(
        run.folder / adapter.TENSORS, specialists, merger, inputs.empty.backbone.state_dict()
    )
    log_truncations(merged)
    method = {"name": name, **dataclasses.asdict(merger)}  # pyright: ignore[reportArgumentType]
    adapter.write_description(
        inputs.empty, run.folder, inputs.base, {}, list(specialists.parts), {"method": method}
    )
    record = {
        "merger": method,
        "base": inputs.base,
        "experts": identities(inputs.experts),
        "gram": specialists.gram.sum(0).tolist(),
        "core": core.weights.tolist(),
        "core_shares": core.shares,
        "spectral_gap": core.gap,
        "warnings": warnings,
        "ceiling": ceiling,
        "search": search,
        "layers": tensor_records(specialists, merger, merged),
    }
    run.write(RECORD, json.dumps(record, indent=1) + "\n")
    draw_merge(
        specialists, merger, core, None if ceiling is None else ceiling["cosine"], run.folder
    )


def write_merged_weights(
    path: Path, specialists: Specialists, merger: Merger, network: StateDict
) -> dict[str, Mapping[str, Any]]:
    """Writes the merged tensors one by one, and returns the merger's record of each.

    Args:
        network: shapes and number formats of the tensors; may be on the meta device.

    Raises:
        InputError: the file cannot be written, or as in `merge_tensors`.
    """
    records: dict[str, Mapping[str, Any]] = {}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        with progress("Merging") as tick:
            watched = dataclasses.replace(specialists, on_read=tick)
            for name, tensor, record in merge_tensors(watched, merger):
                records[name] = record
                yield name, tensor

    layout = {name: (network[name].shape, network[name].dtype) for name in specialists.parts}
    write_state(path, layout, tensors())
    return records


def domain_table(
    run: Run,
    experts: Sequence[Expert],
    names: Iterable[str],
    model: Detector,
    data: DataModule,
    trainer: Trainer,
    coverage: str | None = None,
) -> pl.DataFrame:
    """The AUC of every specialist and of the merge on every forgery.

    Predictions of a specialist's run are reused if it was tested on the same frames and files;
    otherwise the specialist is tested now.

    Args:
        run: the run of the merge, with its predictions.
        names: the merged tensors.
        model: a network for the specialists' weights, which are written into it.
        coverage: of the merge, which holds for the specialists, too, see
            `fmsd.metrics.coverage.cover`.
    """
    names, tables = list(names), []
    own = {
        name: read_predictions(run.folder / "predictions" / f"{name}.parquet")
        for name in data.tests
    }
    for expert in experts:
        record = Run(expert.path).record() if expert.path.is_dir() else {"manifests": {"test": {}}}
        tested, loaded = record["manifests"]["test"], False
        for name, manifest in data.tests.items():
            file, predictions = expert.path / "predictions" / f"{name}.parquet", None
            if tested.get(name, {}).get("digest") == manifest.digest() and file.is_file():
                predictions = read_predictions(file)
            if predictions is None or pixels_digest(predictions) != pixels_digest(own[name]):
                if not loaded:
                    load_tensors(model, ((part, expert.state[part]) for part in names))
                    loaded = True
                lenient = coverage not in (None, REFUSE)
                loader = data.test_loader(name, skip_unreadable=lenient)
                scored = predict(trainer, Scorer(model), loader, manifest)
                predictions = with_expected(scored, manifest, data.absent[name])
            tables.append(_auc_by_domain(cover(predictions, coverage), data, expert.label))
    tables += [
        _auc_by_domain(cover(predictions, coverage), data, MERGED) for predictions in own.values()
    ]
    return pl.concat(tables)


def _auc_by_domain(predictions: pl.DataFrame, data: DataModule, label: str) -> pl.DataFrame:
    table = results_by_domain(
        predictions, data.selection.naming, data.selection.video_score, metrics=("auc",)
    )
    return table.with_columns(detector=pl.lit(label))
