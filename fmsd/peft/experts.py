"""Experts: the specialists of a merge, opened from runs or files of weights and checked."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fmsd.errors import InputError
from fmsd.hub_addresses import address_of, is_address, parse_address, place_name
from fmsd.merge.record import RECORD, read_merge_record
from fmsd.merge.task_vectors import Specialists
from fmsd.models.detector import Detector, weights_path
from fmsd.models.formats import to_timm_keys
from fmsd.models.head import check_head_kind
from fmsd.paths import file_digest
from fmsd.peft import adapter
from fmsd.peft.folded import FoldedWeights
from fmsd.state import check_finite, check_values, read_state, tensor_shapes

MERGED = "merged"
"""The label of the merge among its experts."""


@dataclass(frozen=True)
class Expert:
    """One of the specialists.

    Args:
        label: a short name, unique among the experts.
        path: the folder of its run, or its file of weights.
        state: its weights in timm's keys, read on access.
        changed_names: tensors that may differ from the base's.
        sha256: of the file with its weights.
        base_known: the base weights that it was trained from are recorded.
    """

    label: str
    path: Path
    state: Mapping[str, Tensor]
    changed_names: set[str]
    sha256: str
    base_known: bool


def check_count(experts: Sequence[Path]) -> None:
    """Checks that there are at least two experts, all different."""
    if len(experts) < 2:
        raise InputError(
            f"{len(experts) or 'no'} expert leaves nothing to merge",
            "give two or more as experts='[RUN_OR_FILE, ...]'",
        )
    if twice := [path for index, path in enumerate(experts) if path in experts[:index]]:
        raise InputError(f"The expert {twice[0]} is given twice", "leave one out")


def expert_labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that are unique and differ from `MERGED`.

    The suffixes of files are left out.
    """
    parts = [_named_parts(path) for path in paths]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len({*names, MERGED}) > len(names):
            return names
    return [str(path) for path in paths]


def _named_parts(path: Path) -> tuple[str, ...]:
    """The parts of the path, or of the name on the Hub, by which an expert is labelled."""
    if (address := address_of(path)) is not None:
        return Path(parse_address(address).repo).parts
    return (path if path.is_dir() else path.with_suffix("")).parts


def open_experts(
    paths: Sequence[Path], base: Mapping[str, Tensor], base_hash: str, empty: Detector
) -> list[Expert]:
    """Opens experts without reading their weights.

    Args:
        paths: folders of runs, or files of weights.
        base: the weights that the experts were trained from.
        base_hash: their fingerprint.
        empty: the detector on the meta device.

    Raises:
        InputError: a path has no weights, or those of another backbone, base or kind of head.
    """
    return [
        _open_expert(label, path, base, base_hash, empty)
        for label, path in zip(expert_labels(paths), paths, strict=True)
    ]


def _open_expert(
    label: str, path: Path, base: Mapping[str, Tensor], base_hash: str, empty: Detector
) -> Expert:
    if path.is_dir():
        folded = FoldedWeights(path, base, base_hash, empty)
        digest, known = file_digest(weights_file(path)), folded.description["base"] is not None
        return Expert(label, path, folded, folded.changed_names, digest, known)
    state = read_state(path)
    check_head_kind(state, empty.backbone, adapter.head_name(empty), str(path))
    weights = to_timm_keys(state, empty.backbone, str(path))
    check_finite(weights.items(), str(path))
    return Expert(label, path, weights, set(weights), file_digest(path), base_known=False)


def weights_file(expert: Path) -> Path:
    """The file with an expert's weights, given that file or the folder of a run."""
    return expert / adapter.TENSORS if expert.is_dir() else expert


def identities(experts: Sequence[Expert]) -> list[dict[str, str]]:
    """The label, path and hash of each expert, for the record."""
    return [
        {"label": expert.label, "path": place_name(expert.path), "sha256": expert.sha256}
        for expert in experts
    ]


def base_weights(
    detector: Callable[..., Detector], empty: Detector, initialise: Callable[[], Detector]
) -> Mapping[str, Tensor]:
    """The weights that the experts were trained from.

    They are read from the detector's file tensor by tensor if that is in timm's keys, and held in
    memory otherwise.

    Args:
        detector: a partial of `fmsd.models.detector.detector`.
        empty: the detector on the meta device.
        initialise: builds the detector with its weights.
    """
    weights = detector.keywords.get("weights")  # pyright: ignore[reportFunctionMemberAccess]
    if weights is not None:
        state, plain = read_state(weights_path(weights)), empty.backbone.state_dict()
        if _body_shapes(state, empty) == _body_shapes(plain, empty):
            check_values(state, plain, str(weights))
            check_finite(state.items(), str(weights))
            return state
    return initialise().backbone.state_dict()


def _body_shapes(state: Mapping[str, Tensor], detector: Detector) -> dict[str, object]:
    """The shapes of all tensors outside of the head."""
    head = f"{adapter.head_name(detector)}."
    return {name: size for name, size in tensor_shapes(state).items() if not name.startswith(head)}


def check_distance(specialists: Specialists, experts: Sequence[Expert]) -> None:
    """Checks that the experts can have been trained from the base, and that they differ.

    A file or an imported run whose matrices are further from the base than the base is from zero
    was trained from another base. The base of another run is known by its hash.

    Raises:
        InputError: an expert is such a file or run, or a copy of another one.
    """
    matrices = [
        index
        for index, name in enumerate(specialists.names)
        if specialists.parts[name].kind == "matrix"
    ]
    lengths = specialists.gram[matrices].sum(0).diagonal().sqrt()
    size = math.sqrt(
        sum(
            float(specialists.base_tensor(specialists.names[index]).double().square().sum())
            for index in matrices
        )
    )
    for index, (expert, length) in enumerate(zip(experts, lengths.tolist(), strict=True)):
        if length > size and not expert.base_known:
            raise InputError(
                f"{expert.label} is further from the base weights ({length:.3g}) than these are "
                f"from zero ({size:.3g}), so it was trained from others",
                "give its own base as base=PATH, or leave it out",
            )
        if twins := [other.label for other in experts[:index] if other.sha256 == expert.sha256]:
            raise InputError(
                f"{twins[0]} and {expert.label} are the same file twice", "leave one out"
            )


def check_unchanged(folder: Path) -> None:
    """Checks that the experts of a finished merge are what they were when it was made.

    Raises:
        InputError: an expert is gone or has changed, or the merge has no record of them.
    """
    if not (folder / RECORD).is_file():
        raise InputError(
            f"{folder} holds a finished run without {RECORD}",
            "remove that folder, or merge into another",
        )
    for expert in read_merge_record(folder / RECORD)["experts"]:
        if is_address(expert["path"]):
            continue  # of a commit, which stays what it is
        path = Path(expert["path"])
        file = weights_file(path)
        if not file.is_file():
            raise InputError(f"The expert {path}, merged into {folder}, is gone", "put it back")
        if file_digest(file) != expert["sha256"]:
            raise InputError(
                f"The expert {path} has changed since it was merged into {folder}",
                "remove that folder, or merge into another",
            )
