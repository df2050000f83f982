"""fmsd merge: specialists of one base become one detector, without training.

The result is a run like any other.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fmsd.console import print_place
from fmsd.data.description import describe_datasets
from fmsd.data.manifest import Manifest
from fmsd.data.overlap import REFUSE, Overlap, check_overlap, count_overlap
from fmsd.engine.datamodule import DataModule, DataPart
from fmsd.engine.detectors import build_detector
from fmsd.engine.merge_search import (
    FIXED,
    SEARCH,
    grid_combinations,
    search_coefficients,
    with_coefficients,
)
from fmsd.engine.merging import (
    Inputs,
    domain_table,
    initialise,
    merged_origin,
    read_inputs,
    write_merge,
)
from fmsd.engine.scorer import Scorer
from fmsd.engine.scoring import check_expected, load_for_scoring, manifest_records, score_datasets
from fmsd.engine.stamp import Facts, protocol_stamps
from fmsd.engine.trainer import TrainerFactory, single_process_trainer
from fmsd.errors import InputError
from fmsd.figures.merges import draw_domains
from fmsd.merge.task_vectors import Merger
from fmsd.metrics.coverage import check_coverage
from fmsd.models.detector import Detector
from fmsd.peft.experts import Expert, check_count
from fmsd.quoting import shell_override
from fmsd.redaction import redact_words
from fmsd.report.labels import row_names
from fmsd.report.terminal import cost_line, print_auc_table
from fmsd.runs.claim import claim_run
from fmsd.runs.configuration import training_settings
from fmsd.runs.folder import TRAINING, Run
from fmsd.runs.integrity import DETECTOR_FILES
from fmsd.runs.provenance import provenance
from fmsd.runs.training_frames import join_training_frames
from fmsd.state import tensor_shapes

log = logging.getLogger(__name__)

NOTHING_TESTED = (
    "Nothing was tested: there is no data, or test=false; fmsd evaluate %s data=NAME does it."
)


def merge(
    detector: Callable[..., Detector],
    merger: Merger,
    experts: Sequence[Path],
    data: DataModule | None,
    trainer: TrainerFactory,
    folder: Path,
    config: str,
    command: Sequence[str],
    overrides: Sequence[str],
    choices: Mapping[str, Any],
    seed: int = 0,
    grid: Mapping[str, Sequence[Any]] | None = None,
    before: Mapping[str, Any] | None = None,
    ceiling: Sequence[Path] | None = None,
    overlap: str = REFUSE,
    coverage: str | None = None,
    label: str | None = None,
) -> Run:
    """Merges experts tensor by tensor, and tests the result if there is data.

    Args:
        detector: builds the detector that the experts were trained from; a partial of
            `fmsd.models.detector.detector`.
        experts: folders of runs, or files of weights of the same backbone.
        data: its test datasets are scored; a search scores the validation split of its training
            datasets. None to only merge.
        seed: of a backbone without pretrained weights.
        grid: values of the merger's coefficients to search on validation data.
        before: the record of a merge of all experts but the last, whose Gram matrices are reused.
        ceiling: two trainings of one specialist with different seeds, whose cosine is reported
            beside those of the experts.
        overlap: what happens to tests on training frames of the experts, see `fmsd.data.overlap`.
        coverage: what becomes of frames without a score, see `fmsd.metrics.coverage.cover`.
        label: the name of its row in reports; None for one that names its experts.

    Raises:
        InputError: the experts cannot be merged, or the data cannot be used; nothing is written.
    """
    start, run = time.monotonic(), Run(folder)
    check_count(experts)
    check_runs(experts, ceiling or (), data.selection.test if data else ())
    check_overlap(overlap)
    check_coverage(coverage)
    check_ceiling(ceiling)
    candidates = grid_combinations(grid or {})
    for values in candidates:
        with_coefficients(merger, values)
    if candidates and data is None:
        raise InputError("A search looks at validation data, and there is none", "give data=NAME")
    with claim_run(run, config, resumable=True, option="out"):
        tests = load_merge_frames(data, bool(candidates), coverage) if data else {}
        counts = count_overlap(tests, join_training_frames(run, experts), overlap)
        inputs = read_inputs(detector, experts, folder, seed, before, ceiling)
        search = None if before is None else before["search"]
        if candidates and data:
            build = partial(initialise, detector, seed)
            search = run_search(candidates, inputs, merger, build, data, trainer, folder)
            merger = with_coefficients(merger, search["chosen"])
        elif search:
            search = search | {"by": "a merge without the last expert"}
        write_merge(run, inputs, merger, choices["merger"], search)
        record = run_record(inputs, experts, data, tests, command, search, counts) | {
            "overrides": redact_words(overrides),
            "choices": dict(choices),
            "label": label and redact_words([label])[0],
            "seed": seed,
            "seconds": round(time.monotonic() - start, 1),
        }
        if candidates and data:
            record["manifests"]["validation"] = describe_datasets(data.splits.validation)
        if data and tests:
            run.write_record(record)
            record["stamps"] = score_merge(run, inputs, detector, data, trainer, record, coverage)
        run.finish(record)
        if not (data and tests):
            log.info(NOTHING_TESTED, shell_override("run", folder))
    print_place(f"The merged run lies in {folder}", folder)
    return run


def run_search(
    candidates: Sequence[Mapping[str, Any]],
    inputs: Inputs,
    merger: Merger,
    build: Callable[[], Detector],
    data: DataModule,
    trainer: TrainerFactory,
    folder: Path,
) -> dict[str, Any]:
    """Searches the merger's coefficients; see `fmsd.engine.merge_search.search_coefficients`.

    Args:
        build: builds the network that is scored.
        folder: of the merge.
    """
    single = single_process_trainer(trainer, folder)
    model = build_detector(build, single.strategy.root_device, single.precision)
    return search_coefficients(candidates, inputs.specialists, merger, model, data, single)


def check_runs(experts: Sequence[Path], ceiling: Sequence[Path], tests: Sequence[str]) -> None:
    """Checks the weights of runs, and what a merge uses again of its experts.

    Args:
        experts, ceiling: folders of runs, or files of weights.
        tests: the datasets that the merge is tested on.

    Raises:
        InputError: a folder is no run, a file in it is not what its record says, or a file of the
            detector is missing.
    """
    without = {TRAINING: "the test frames cannot be compared with its training frames"} | {
        f"predictions/{name}.parquet": f"the expert is tested on {name} again" for name in tests
    }
    for path in (*experts, *ceiling):
        if path.is_dir():
            Run(path).check(*DETECTOR_FILES, optional=without if path in experts else None)


def check_ceiling(paths: Sequence[Path] | None) -> None:
    """Checks that the paths are two trainings of one specialist, as far as they show it.

    Raises:
        InputError: there are not two paths, or two runs have equal seeds, other recipes or data.
    """
    if paths is None:
        return
    remedy = (
        "give two runs or files of one specialist, trained with different seeds, as "
        "ceiling='[RUN_OR_FILE,RUN_OR_FILE]'"
    )
    if len(paths) != 2 or paths[0] == paths[1]:
        given = "one twice" if len(paths) == 2 else f"{len(paths)} of them"
        raise InputError(
            "The ceiling of cosines is that between two seeds of one specialist, and there is "
            f"{given}",
            remedy,
        )
    if all(path.is_dir() for path in paths):
        one, other = Run(paths[0]), Run(paths[1])
        if one.record()["seed"] == other.record()["seed"]:
            raise InputError(
                f"{one.folder} and {other.folder} both have seed={one.record()['seed']}", remedy
            )
        first = one.origin() | (training_settings(one, one.record()) or {})
        second = other.origin() | (training_settings(other, other.record()) or {})
        if differing := sorted(key for key in first | second if first.get(key) != second.get(key)):
            raise InputError(
                f"{one.folder} and {other.folder} are not one specialist: they differ in "
                f"{', '.join(differing)}",
                remedy,
            )


def load_merge_frames(
    data: DataModule, searching: bool, coverage: str | None
) -> Mapping[str, Manifest]:
    """Loads the test datasets, if there are any, and for a search the validation frames.

    Returns:
        The test datasets.

    Raises:
        InputError: the frames cannot be used.
    """
    parts: list[DataPart] = ["validation"] if searching else []
    if data.selection.test:
        parts.append("tests")
    if parts:
        data.load(*parts)
    if not data.selection.test:
        return {}
    check_expected(data, coverage)
    return data.tests


def run_record(
    inputs: Inputs,
    experts: Sequence[Path],
    data: DataModule | None,
    tests: Mapping[str, Manifest],
    command: Sequence[str],
    search: Mapping[str, Any] | None,
    overlap: Overlap,
) -> dict[str, Any]:
    """The entries of `run.json` that do not follow from the command line alone."""
    origin = merged_origin(experts, SEARCH if search else FIXED)
    shapes = tensor_shapes(inputs.empty.backbone.state_dict())
    return provenance(command) | {
        "selection": origin["selection"],
        "thresholds": None,
        "origin": origin,
        "stamps": protocol_stamps(data, origin, overlap) if data and tests else {},
        "overlap": dict(overlap),
        "monitor": None,
        "monitored": search["best"] if search else None,
        "epoch": None,
        "merged": [expert.label for expert in inputs.experts],
        "experts": named_experts(inputs.experts),
        "trainable": 0,
        "parameters": sum(shape.numel() for shape in shapes.values()),
        "manifests": {"test": manifest_records(tests)},
        "suite": data.selection.suite if data and data.selection.test else None,
        "skipped": data.skipped if data and data.selection.test else [],
    }


def named_experts(experts: Sequence[Expert]) -> list[dict[str, str]]:
    """The name of each expert in a report on the experts alone, and the digest of its weights.

    Files of weights, and folders of runs that do not record their overrides, keep their label.
    """
    records = [Run(expert.path).record() if expert.path.is_dir() else {} for expert in experts]
    known = [record for record in records if "overrides" in record]
    names = iter(row_names(known))
    return [
        {
            "name": next(names).label if "overrides" in record else expert.label,
            "sha256": expert.sha256,
        }
        for expert, record in zip(experts, records, strict=True)
    ]


def score_merge(
    run: Run,
    inputs: Inputs,
    detector: Callable[..., Detector],
    data: DataModule,
    trainer: TrainerFactory,
    record: Mapping[str, Any],
    coverage: str | None,
) -> dict[str, Facts]:
    """Tests the merge, and every specialist on every forgery, and writes the results.

    The table of results is written last: it marks the run as finished.

    Returns:
        The facts behind the stamps of the results.
    """
    model, worker = load_for_scoring(run, detector, trainer, run.folder)
    table, stamps = score_datasets(run, record, worker, Scorer(model), data, coverage=coverage)
    parts = inputs.specialists.parts
    domains = domain_table(run, inputs.experts, parts, model, data, worker, coverage)
    run.write("domains.csv", domains.write_csv())
    draw_domains(domains, run.folder / "domains.png")
    run.write_results(table)
    print_auc_table(
        table,
        f"AUC, {len(inputs.experts)} specialists merged by {record['choices']['merger']}",
        cost_line(record),
    )
    return stamps
