"""The record of a merge, `merge.json`, whose Gram matrices later merges reuse."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from typing_extensions import TypedDict

from fmsd.errors import InputError
from fmsd.json_records import Number, read_record
from fmsd.merge.core import HasCore
from fmsd.merge.r2m import R2M
from fmsd.merge.task_vectors import Merger, Specialists

log = logging.getLogger(__name__)

RECORD = "merge.json"
"""The file name of the record."""


class Base(TypedDict):
    """The weights that the experts were trained from."""

    hash: str


class MergedExpert(TypedDict):
    """An expert of a merge."""

    path: str
    sha256: str


class MergedTensor(TypedDict):
    """A merged tensor: its name, and the Gram matrix of the experts' changes of it."""

    name: str
    gram: list[list[Number]]


class MergeRecord(TypedDict):
    """The keys of the record that later merges read."""

    merger: dict[str, Any]
    base: Base
    experts: list[MergedExpert]
    search: dict[str, Any] | None
    layers: list[MergedTensor]


def read_merge_record(path: Path) -> dict[str, Any]:
    """Reads the record of a merge.

    Raises:
        InputError: it is damaged.
    """
    remedy = "put it back, or merge anew"
    record = read_record(path, MergeRecord, remedy)
    count = len(record["experts"])
    for layer in record["layers"]:
        if [len(row) for row in layer["gram"]] != [count] * count:
            raise InputError(
                f"{path} is damaged: the Gram matrix of {layer['name']!r:.100} is not that of "
                f"{count} experts",
                remedy,
            )
    return record


def core_merger(merger: Merger) -> HasCore:
    """The merger whose core the record describes: R2M unless the merger itself has a core."""
    return merger if isinstance(merger, HasCore) else R2M()


def tensor_records(
    specialists: Specialists, merger: Merger, merged: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The per-tensor record: Gram matrix, norms of core and residuals, and rank.

    Args:
        merged: the merger's own record of each tensor, which takes precedence. Without it the norms
            of residuals are those before truncation.
    """
    norms = core_merger(merger).norms(specialists)
    return [
        {
            "name": name,
            "gram": gram.tolist(),
            "core": float(core),
            "residuals": residuals.tolist(),
            **merged[name],
        }
        for name, gram, core, residuals in zip(
            specialists.names, specialists.gram, *norms, strict=True
        )
    ]


def known_grams(
    before: Mapping[str, Any],
    base_hash: str,
    experts: Sequence[tuple[Path, str]],
    names: Sequence[str],
) -> Float64[Tensor, "layers known known"]:
    """The Gram matrices in the record of a merge of the first experts.

    They are zero for tensors in which none of these experts differs from the base.

    Args:
        before: the record.
        base_hash: the fingerprint of the base weights.
        experts: path and SHA-256 of each of these experts.
        names: the tensors of the new merge.

    Raises:
        InputError: the base or an expert has changed.
    """
    if before["base"]["hash"] != base_hash:
        raise InputError(
            "The base is not that of the earlier merge", "give the same, or merge anew"
        )
    for earlier, (path, sha256) in zip(before["experts"], experts, strict=True):
        if earlier["sha256"] != sha256:
            raise InputError(
                f"The expert {path} has changed since it was merged",
                "merge anew with experts='[...]'",
            )
    grams = {
        layer["name"]: torch.tensor(layer["gram"], dtype=torch.float64)
        for layer in before["layers"]
    }
    zeros = torch.zeros(len(experts), len(experts), dtype=torch.float64)
    return torch.cat([zeros[None][:0], *(grams.get(name, zeros)[None] for name in names)])


def log_truncations(merged: Mapping[str, Mapping[str, Any]]) -> None:
    """Logs how many matrices were decomposed exactly because a Krylov space guaranteed too little.

    Args:
        merged: the merger's record of each tensor.
    """
    matrices = sum(len(record.get("of_best", ())) for record in merged.values())
    rejected = {
        name: record["rejected"] for name, record in merged.items() if record.get("rejected")
    }
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
