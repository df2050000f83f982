"""Merging: specialists of one base become one detector, without training. The result is a run like any other."""

import dataclasses
import hashlib
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from jaxtyping import Float64
from torch import Tensor

from fmsd.console import counting
from fmsd.data import manifest as manifests
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Scorer
from fmsd.engine.scoring import predict, scored, tested
from fmsd.engine.stamp import Facts, stamps
from fmsd.engine.trainer import Trainer, TrainerFactory, alone, seed_everything
from fmsd.engine.weights import built, folded
from fmsd.errors import InputError, reason
from fmsd.figures import merges, style
from fmsd.merge.core import Core
from fmsd.merge.r2m import R2M
from fmsd.merge.r2m_script import R2MScript
from fmsd.merge.task_vectors import Merger, Part, Specialists
from fmsd.merge.task_vectors import merge as merged
from fmsd.metrics.table import by_domain, results
from fmsd.models.detector import Detector, locate, skeleton
from fmsd.models.formats import timm_keys
from fmsd.models.head import check_kind
from fmsd.peft import adapter
from fmsd.peft.specialist import Folded, changed
from fmsd.quoting import shell_override
from fmsd.report.rows import learning_settings
from fmsd.report.terminal import show
from fmsd.runs.folder import Run, caption, claimed, provenance
from fmsd.state import check_values, read_state, shapes, write_state
from fmsd.tables import read_parquet

log = logging.getLogger(__name__)

FIXED, SEARCH = "fixed", "search"
"""How a merge came to its coefficients, in result tables: as they were given, or as the best on validation data."""

MERGED = "merged"
"""The merge among its experts."""

RECORD = "merge.json"
"""What a merge says about itself."""


@dataclass(frozen=True)
class Expert:
    """One of the specialists.

    Args:
        label: a short name that no other expert has.
        path: the folder of its run, or its file of weights.
        state: its weights in timm's keys.
        touched: the names of the tensors that may differ from the base's.
        sha256: of the file that holds them.
    """

    label: str
    path: Path
    state: Mapping[str, Tensor]
    touched: set[str]
    sha256: str


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
) -> Run:
    """Merges experts, tensor by tensor from file to file, and tests the result where there is data.

    Args:
        detector: makes the detector that the experts began with; a partial of
            `fmsd.models.detector.detector`.
        experts: folders of runs, or files of weights of the same backbone.
        data: its test datasets are scored; a search looks at the validation split of its training
            datasets. None to only merge.
        seed: of a backbone without pretrained weights.
        grid: values of the merger's coefficients to choose from on validation data.
        before: the record of a merge of all experts but the last, whose Gram matrices are used
            again.
        ceiling: two trainings of one specialist with different seeds, whose cosine is reported
            beside those of the experts.

    Raises:
        InputError: experts that cannot be merged, or data that cannot be used; nothing is left
            behind.
    """
    start, run = time.monotonic(), Run(folder)
    check_count(experts)
    check_ceiling(ceiling)
    candidates = combinations(grid or {})
    for values in candidates:
        with_values(merger, values)
    if candidates and data is None:
        raise InputError("A search looks at validation data, and there is none", "give data=NAME")
    with claimed(run, config, resumable=True, named="out"):
        tests = data.tests if data and data.test_names else {}
        empty = skeleton(detector)
        base = base_weights(detector, empty, seed)
        backbone = dict(detector.keywords)  # pyright: ignore[reportFunctionMemberAccess]
        fingerprint = adapter.fingerprint(empty, base)
        about = {"name": backbone["name"], "backbone": backbone, "hash": fingerprint}
        found = [
            opened(label, path, base, about, empty)
            for label, path in zip(labels(experts), experts, strict=True)
        ]
        parts = changed(empty, set.union(*(expert.touched for expert in found)))
        specialists = Specialists(
            base,
            [expert.state for expert in found],
            parts,
            [expert.label for expert in found],
            scratch=folder,
        )
        if before is not None:
            specialists = dataclasses.replace(
                specialists, known=known_grams(before, found, about, specialists.names)
            )
        with counting("Comparing", len(specialists.names)) as tick:
            specialists = dataclasses.replace(
                specialists, known=dataclasses.replace(specialists, watch=tick).gram
            )
        check_distance(specialists, found)
        seeds = None if ceiling is None else two_seeds(ceiling, base, about, empty, parts)
        searched = None if before is None else before["search"]
        if candidates and data:
            worker = alone(trainer, folder)
            searched = search(
                candidates,
                specialists,
                merger,
                built(
                    partial(fresh, detector, seed), worker.strategy.root_device, worker.precision
                ),
                data,
                worker,
            )
            merger = with_values(merger, searched["chosen"])
        elif searched:
            searched = searched | {"by": "a merge without the last expert"}
        core = split(merger).core(specialists)
        doubts = core.warnings(specialists.labels)
        if isinstance(merger, R2M | R2MScript):
            for doubt in doubts:
                log.warning("%s; see cosines.png and spectrum.png.", doubt)
        said = write(folder / adapter.TENSORS, specialists, merger, empty)
        log_truncations(said)
        named = {"name": choices["merger"], **dataclasses.asdict(merger)}  # pyright: ignore[reportArgumentType]
        adapter.describe(empty, folder, about, {}, list(parts), {"method": named})
        made = {
            "merger": named,
            "base": about,
            "experts": [
                {"label": expert.label, "path": str(expert.path), "sha256": expert.sha256}
                for expert in found
            ],
            "gram": specialists.gram.sum(0).tolist(),
            "core": core.weights.tolist(),
            "core_shares": core.shares,
            "spectral_gap": core.gap,
            "warnings": doubts,
            "ceiling": seeds,
            "search": searched,
            "layers": layers(specialists, merger, said),
        }
        run.write(RECORD, json.dumps(made, indent=1) + "\n")
        pictures(specialists, merger, core, None if seeds is None else seeds["cosine"], folder)
        selection = SEARCH if searched else FIXED
        trained = origins(experts, selection)
        selection = trained["selection"]
        record = provenance(command) | {
            "overrides": list(overrides),
            "choices": dict(choices),
            "seed": seed,
            "selection": selection,
            "thresholds": None,
            "origin": trained,
            "stamps": stamps(data, trained) if data and tests else {},
            "monitor": None,
            "monitored": searched["best"] if searched else None,
            "epoch": None,
            "merged": [expert.label for expert in found],
            "trainable": 0,
            "parameters": sum(
                shape.numel() for shape in shapes(empty.backbone.state_dict()).values()
            ),
            "seconds": round(time.monotonic() - start, 1),
            "manifests": {"test": tested(tests)}
            | ({"validation": manifests.summary(data.validation)} if candidates and data else {}),
            "skipped": data.skipped if data else [],
        }
        run.write_record(record)
        if data and tests:
            worker = alone(trainer, folder)
            model = folded(
                run, partial(built, detector, worker.strategy.root_device, worker.precision)
            )
            table = scored(run, record, worker, Scorer(model), data)
            matrix(run, found, parts, model, data, worker)
            run.write_results(table)
            show(
                table,
                f"AUC, {len(found)} specialists merged by {choices['merger']}",
                caption(record),
            )
        else:
            log.info(
                "Nothing was tested: there is no data, or test=false; fmsd evaluate %s data=NAME "
                "does it.",
                shell_override("run", folder),
            )
    print(f"The merged run lies in {folder}")
    return run


def check_count(experts: Sequence[Path]) -> None:
    """Refuses what is no set of several experts.

    Raises:
        InputError: less than two, or one of them twice.
    """
    if len(experts) < 2:
        raise InputError(
            f"{len(experts) or 'no'} expert leaves nothing to merge",
            "give two or more as experts='[RUN_OR_FILE, ...]'",
        )
    if twice := [path for place, path in enumerate(experts) if path in experts[:place]]:
        raise InputError(f"The expert {twice[0]} is given twice", "leave one out")


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values of a grid; none of an empty one."""
    return (
        [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        if grid
        else []
    )


def with_values(merger: Merger, values: Mapping[str, Any]) -> Merger:
    """The merger with other coefficients.

    Raises:
        InputError: it has no coefficient of a name, or refuses a value.
    """
    known = [field.name for field in dataclasses.fields(merger)]  # pyright: ignore[reportArgumentType]
    if unknown := [name for name in values if name not in known]:
        raise InputError(
            f"search names {unknown[0]!r}, and {type(merger).__name__} has "
            f"{', '.join(known) or 'no coefficients'}",
            "correct search=",
        )
    return dataclasses.replace(merger, **values)  # pyright: ignore[reportArgumentType, reportCallIssue]


def labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths, without a file's suffix, that tell all of them and the merge apart."""
    parts = [(path if path.is_dir() else path.with_suffix("")).parts for path in paths]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len({*names, MERGED}) > len(names):
            return names
    return [str(path) for path in paths]


def fresh(detector: Callable[..., Detector], seed: int) -> Detector:
    """The detector that the experts began with; one without pretrained weights follows from the seed."""
    seed_everything(seed)
    return detector()


def base_weights(
    detector: Callable[..., Detector], empty: Detector, seed: int
) -> Mapping[str, Tensor]:
    """The weights that the detector begins with: from its file, tensor by tensor, where that is in timm's keys already, else in memory."""
    weights = detector.keywords.get("weights")  # pyright: ignore[reportFunctionMemberAccess]
    head = f"{adapter.head_name(empty)}."
    if weights is not None:
        state = read_state(locate(weights))
        found, own = (
            {name: shape for name, shape in shapes(tensors).items() if not name.startswith(head)}
            for tensors in (state, empty.backbone.state_dict())
        )
        if found == own:
            check_values(state, empty.backbone.state_dict(), str(weights))
            return state
    return fresh(detector, seed).backbone.state_dict()


def opened(
    label: str, path: Path, base: Mapping[str, Tensor], about: Mapping[str, Any], empty: Detector
) -> Expert:
    """An expert, its weights not read yet.

    Args:
        about: name and hash of the base.

    Raises:
        InputError: neither a run nor a file of weights, or one of another backbone, base or head.
    """
    if path.is_dir():
        Run(path).record()  # says what is wrong with a folder that is no run
        state = Folded(path, base, about["hash"], empty)
        return Expert(label, path, state, state.touched, digest(tensors_of(path)))
    found = read_state(path)
    check_kind(found, empty.backbone, adapter.head_name(empty), str(path))
    weights = timm_keys(found, empty.backbone, str(path))
    return Expert(label, path, weights, set(weights), digest(path))


def origins(experts: Sequence[Path], selection: str) -> Facts:
    """What must be known of the trainings to compare tests of their merge: each fact of theirs, joined by + where they differ; of files nothing.

    The rule of selection says by what other rule than `iid` an expert was chosen: a merge of what
    the test data chose is no better.
    """
    known = [Run(path).origin() for path in experts if path.is_dir()]
    train = [name_and_digest for one in known for name_and_digest in one["train"].items()] + [
        ("unknown", "")
    ] * (len(known) < len(experts))
    rules = joined(one["selection"] for one in known)
    numbers = joined(one["train_frames"] for one in known if "train_frames" in one)
    return {
        "selection": selection if rules in ("", "iid") else f"{selection} of {rules}",
        "augment": joined(one["augment"] for one in known),
        "train": {
            name: joined(digest for other, digest in train if other == name)
            for name in sorted({name for name, _ in train})
        },
        "left_out": joined(one["left_out"] for one in known if one["left_out"]) or None,
        **({"train_frames": numbers} if numbers else {}),
    }


def joined(words: Iterable[str]) -> str:
    """Different words, or sums of words, as one sum in one order."""
    return "+".join(sorted({part for word in words for part in word.split("+")}))


def tensors_of(expert: Path) -> Path:
    """The file with the weights of an expert, which is that file or the folder of a run."""
    return expert / adapter.TENSORS if expert.is_dir() else expert


def digest(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged(folder: Path) -> None:
    """Compares the experts of a finished merge with what they are now.

    Raises:
        InputError: one is gone or has changed, or the merge does not say what they were.
    """
    if not (folder / RECORD).is_file():
        raise InputError(
            f"{folder} holds a finished run without {RECORD}",
            "remove that folder, or merge into another",
        )
    for expert in json.loads((folder / RECORD).read_text(encoding="utf-8"))["experts"]:
        path = Path(expert["path"])
        file = tensors_of(path)
        if not file.is_file():
            raise InputError(f"The expert {path}, merged into {folder}, is gone", "put it back")
        if digest(file) != expert["sha256"]:
            raise InputError(
                f"The expert {path} has changed since it was merged into {folder}",
                "remove that folder, or merge into another",
            )


def known_grams(
    before: Mapping[str, Any],
    experts: Sequence[Expert],
    about: Mapping[str, Any],
    names: Sequence[str],
) -> Float64[Tensor, "..."]:
    """The Gram matrices (layers, known, known) that an earlier merge of all experts but the last has left; zero where none of these differs.

    Raises:
        InputError: the base or an expert is not what it was.
    """
    if before["base"]["hash"] != about["hash"]:
        raise InputError(
            "The base is not that of the earlier merge", "give the same, or merge anew"
        )
    for old, expert in zip(before["experts"], experts[:-1], strict=True):
        if old["sha256"] != expert.sha256:
            raise InputError(
                f"The expert {expert.path} has changed since it was merged",
                "merge anew with experts='[...]'",
            )
    grams = {
        layer["name"]: torch.tensor(layer["gram"], dtype=torch.float64)
        for layer in before["layers"]
    }
    nothing = torch.zeros(len(experts) - 1, len(experts) - 1, dtype=torch.float64)
    return torch.cat([nothing[None][:0], *(grams.get(name, nothing)[None] for name in names)])


def check_distance(specialists: Specialists, experts: Sequence[Expert]) -> None:
    """Refuses files that cannot have been trained from the base, those whose matrices are further from it than it is from zero, and copies.

    Raises:
        InputError: such an expert.
    """
    matrices = [
        place
        for place, name in enumerate(specialists.names)
        if specialists.parts[name].kind == "matrix"
    ]
    lengths = specialists.gram[matrices].sum(0).diagonal().sqrt()
    size = math.sqrt(
        sum(
            float(specialists.start(specialists.names[place]).double().square().sum())
            for place in matrices
        )
    )
    for place, (expert, length) in enumerate(zip(experts, lengths.tolist(), strict=True)):
        if length > size and not expert.path.is_dir():  # a run's base is known by its hash
            raise InputError(
                f"{expert.label} is further from the base weights ({length:.3g}) than these are "
                f"from zero ({size:.3g}), so it was trained from "
                "others",
                "give its own base as base=PATH, or leave it out",
            )
        if twins := [other.label for other in experts[:place] if other.sha256 == expert.sha256]:
            raise InputError(
                f"{twins[0]} and {expert.label} are the same file twice", "leave one out"
            )


def write(
    path: Path, specialists: Specialists, merger: Merger, empty: Detector
) -> dict[str, Mapping[str, Any]]:
    """Writes the merged tensors, in the number formats of the network, and returns what the merger says about each."""
    own, said = empty.backbone.state_dict(), {}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        with counting("Merging") as tick:
            for name, tensor, words in merged(dataclasses.replace(specialists, watch=tick), merger):
                said[name] = words
                yield name, tensor

    try:
        write_state(
            path,
            {name: (own[name].shape, own[name].dtype) for name in specialists.parts},
            tensors(),
        )
    except OSError as error:
        raise InputError(
            f"The merged weights cannot be written to {path.parent} ({reason(error)})",
            "give another folder as out=PATH",
        ) from error
    return said


def layers(
    specialists: Specialists, merger: Merger, said: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What there is to say about every tensor: the norms of core and residuals, before truncation unless the merger says otherwise, and its rank."""
    norms = zip(specialists.names, specialists.gram, *split(merger).norms(specialists), strict=True)
    return [
        {
            "name": name,
            "gram": gram.tolist(),
            "core": float(core),
            "residuals": own.tolist(),
            **said[name],
        }
        for name, gram, core, own in norms
    ]


@torch.no_grad()
def fill(model: Detector, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copies tensors into a plain backbone."""
    own = model.backbone.state_dict()
    for name, tensor in tensors:
        own[name].copy_(tensor)


def search(
    candidates: Sequence[Mapping[str, Any]],
    specialists: Specialists,
    merger: Merger,
    model: Detector,
    data: DataModule,
    trainer: Trainer,
) -> dict[str, Any]:
    """Merges by every candidate and scores the validation frames: the mean video AUC over their datasets chooses, the first of equals.

    Returns:
        What was tried and found, for the record.
    """
    manifest, tried = data.validation, []
    for values in candidates:
        fill(
            model,
            (
                (name, tensor)
                for name, tensor, _ in merged(specialists, with_values(merger, values))
            ),
        )
        table = results(
            predict(trainer, Scorer(model), data.validation_loader(), manifest),
            SEARCH,
            video_score=data.video_score,
        )
        value = table.filter(level="video", metric="auc")["value"].mean()
        tried.append({**values, "value": value})
        log.info(
            "%s: video AUC %.4f on validation data.",
            " ".join(f"{name}={value}" for name, value in values.items()),
            value,
        )
    best = max(tried, key=lambda entry: entry["value"])
    chosen = {name: value for name, value in best.items() if name != "value"}
    log.info(
        "Chosen on the validation split of %s, among %d: %s.",
        ", ".join(data.train_names),
        len(tried),
        chosen,
    )
    return {
        "on": list(data.train_names),
        "metric": "mean video AUC over the datasets",
        "tried": tried,
        "chosen": chosen,
        "best": best["value"],
    }


def split(merger: Merger) -> R2M | R2MScript:
    """How task vectors are split into core and residuals for the record and the pictures: as R2M does, unless the merger has its own way."""
    return merger if isinstance(merger, R2M | R2MScript) else R2M()


def log_truncations(said: Mapping[str, Mapping[str, Any]]) -> None:
    """Logs how many matrices were decomposed as a whole because a Krylov space guaranteed too little."""
    matrices = sum(len(words.get("of_best", ())) for words in said.values())
    rejected = {name: words["rejected"] for name, words in said.items() if words.get("rejected")}
    if rejected:
        name = min(rejected, key=lambda name: min(rejected[name]))
        log.info(
            "%d of %d matrices were decomposed as a whole: their truncations in a Krylov space "
            "were known to hold less than merger.least_energy of "
            "the best ones' energy (%.2f in %s).",
            sum(map(len, rejected.values())),
            matrices,
            min(rejected[name]),
            name,
        )


def check_ceiling(paths: Sequence[Path] | None) -> None:
    """Refuses what is not two trainings of one specialist.

    Raises:
        InputError: other than two, one twice, or two runs of one seed or of different recipes or
            data.
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
        one, other = map(Run, paths)
        if one.record()["seed"] == other.record()["seed"]:
            raise InputError(
                f"{one.folder} and {other.folder} both have seed={one.record()['seed']}", remedy
            )
        first, second = (
            run.origin() | (learning_settings(run, run.record()) or {}) for run in (one, other)
        )
        if differing := sorted(key for key in first | second if first.get(key) != second.get(key)):
            raise InputError(
                f"{one.folder} and {other.folder} are not one specialist: they differ in "
                f"{', '.join(differing)}",
                remedy,
            )


def two_seeds(
    paths: Sequence[Path],
    base: Mapping[str, Tensor],
    about: Mapping[str, Any],
    empty: Detector,
    parts: Mapping[str, Part],
) -> dict[str, Any]:
    """The cosine between the task vectors of two seeds of one specialist, over all tensors that are merged.

    Args:
        about: name and hash of the base.
        parts: those of the merge.

    Returns:
        The two and their cosine, for the record.

    Raises:
        InputError: one that is no specialist of this base, or that did not change the merged
            tensors.
    """
    found = [
        opened(label, path, base, about, empty)
        for label, path in zip(labels(paths), paths, strict=True)
    ]
    pair = Specialists(
        base, [expert.state for expert in found], parts, [expert.label for expert in found]
    )
    check_distance(pair, found)
    cosine = float(merges.cosine(pair.gram.sum(0))[0, 1])
    if math.isnan(cosine):
        raise InputError(
            f"{found[0].label} or {found[1].label} did not change the tensors that are merged",
            "leave ceiling= out",
        )
    log.info(
        "The cosine between two seeds of one specialist is %s, the ceiling of those between the "
        "experts.",
        f"{cosine:z.2f}",
    )
    return {
        "experts": [
            {"label": expert.label, "path": str(expert.path), "sha256": expert.sha256}
            for expert in found
        ],
        "cosine": cosine,
    }


def pictures(
    specialists: Specialists, merger: Merger, core: Core, ceiling: float | None, folder: Path
) -> None:
    """Draws what the specialists share and what is their own."""
    division = split(merger)
    norms, residuals = division.norms(specialists)
    matrices = [
        place
        for place, name in enumerate(specialists.names)
        if specialists.parts[name].kind == "matrix"
    ]
    if matrices:
        style.write(
            merges.norms(
                [specialists.names[place] for place in matrices],
                norms[matrices],
                residuals[matrices],
            ),
            folder / "norms.png",
        )
    style.write(
        merges.cosines(specialists.labels, specialists.gram.sum(0), ceiling), folder / "cosines.png"
    )
    style.write(
        merges.spectrum(core.matrix, core.directions, core.warnings(specialists.labels)),
        folder / "spectrum.png",
    )


def matrix(
    run: Run,
    experts: Sequence[Expert],
    parts: Mapping[str, Part],
    model: Detector,
    data: DataModule,
    trainer: Trainer,
) -> None:
    """Writes the AUC of every specialist and of the merge on every forgery.

    Where a specialist's run was tested on the same frames, its predictions are used; otherwise it
    is tested now.
    """
    tables = []
    for expert in experts:
        record = Run(expert.path).record() if expert.path.is_dir() else {"manifests": {"test": {}}}
        filled = False
        for name, manifest in data.tests.items():
            own = expert.path / "predictions" / f"{name}.parquet"
            if (
                record["manifests"]["test"].get(name, {}).get("digest") == manifest.digest()
                and own.is_file()
            ):
                predictions = read_parquet(own)
            else:
                if not filled:
                    fill(model, ((part, expert.state[part]) for part in parts))
                    filled = True
                predictions = predict(trainer, Scorer(model), data.test_loader(name), manifest)
            tables.append(
                by_domain(
                    predictions, data.naming, data.video_score, metrics=("auc",)
                ).with_columns(detector=pl.lit(expert.label))
            )
    for name in data.tests:
        predictions = read_parquet(run.folder / "predictions" / f"{name}.parquet")
        tables.append(
            by_domain(predictions, data.naming, data.video_score, metrics=("auc",)).with_columns(
                detector=pl.lit(MERGED)
            )
        )
    table = pl.concat(tables)
    run.write("domains.csv", table.write_csv())
    wide = (
        table.filter(level="video")
        .select("detector", "value", column=pl.format("{}/{}", "dataset", "domain"))
        .pivot("column", index="detector", values="value", maintain_order=True)
    )
    style.write(
        merges.domain_matrix(
            wide["detector"].to_list(), wide.columns[1:], wide.drop("detector").to_numpy()
        ),
        run.folder / "domains.png",
    )
