"""What a merge reads: base weights, experts, and the Gram matrices of their task vectors."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fmsd.console import progress
from fmsd.engine.trainer import seed_everything
from fmsd.errors import InputError
from fmsd.figures import merges
from fmsd.merge.record import known_grams
from fmsd.merge.task_vectors import Specialists
from fmsd.models.detector import Detector, meta_detector
from fmsd.peft import adapter
from fmsd.peft.experts import Expert, base_weights, check_distance, identities, open_experts
from fmsd.peft.parts import changed_parts
from fmsd.runs.folder import Run

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

    Args: see `merge`.

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
            Run(path).record()  # raises if the folder is no run
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
    """Returns the record of the cosine between the task vectors of two seeds of one specialist.

    Args:
        seeds: the two trainings.
        specialists: of the merge, whose tensors are compared.

    Raises:
        InputError: one was not trained from this base, or did not change the merged tensors.
    """
    states, labels = [seed.state for seed in seeds], [seed.label for seed in seeds]
    pair = Specialists(specialists.base, states, specialists.parts, labels)
    check_distance(pair, seeds)
    cosine = float(merges.cosine_matrix(pair.gram.sum(0))[0, 1])
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
