"""Loads a detector for predictions from wherever it is: the folder of a run, or a file."""

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fmsd.cli.build import build
from fmsd.cli.loaded_runs import base_override, check_run_record
from fmsd.cli.run_places import run_folder
from fmsd.cli.trust import check_loaded, load_run_config, trusted_prefixes
from fmsd.data.extraction.faces import FaceDetector, YuNet
from fmsd.errors import InputError, reason
from fmsd.hub_addresses import is_address
from fmsd.inference.crop_scoring import CROPS_REMEDY
from fmsd.inference.facts import DetectorFacts, read_facts
from fmsd.inference.loaded_detector import LoadedDetector
from fmsd.inference.metadata import ONNX_SUFFIX, PT2_SUFFIX
from fmsd.runs.folder import Run

log = logging.getLogger(__name__)

FOLDED = ".safetensors"
"""The suffix of folded weights."""


def load_detector(
    source: str,
    device: str | None = None,
    base: str | None = None,
    trust: object = (),
    face_detector: Callable[[], FaceDetector] = YuNet,
) -> LoadedDetector:
    """The detector of a run, ready to score files and images.

    Args:
        source: the folder of a run, its address on the Hub, or a file of `fmsd fold` or
            `fmsd export`.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; None for the one that the run's trainer chooses.
        base: where the backbone's pretrained weights are, if they have moved since the run.
        trust: what the run's configuration may name beside the declared targets, see
            `fmsd.cli.trust`.
        face_detector: builds the detector of faces.

    Raises:
        InputError: there is no detector, or it cannot be used.
    """
    if is_exported(source):
        return load_onnx(run_folder(source), device, base, face_detector)
    path = run_folder(source)
    if path.suffix == PT2_SUFFIX and not path.is_dir():
        raise InputError(
            f"{path} is an exported program for other software, which fmsd does not run",
            f"give its run, or export it as FILE{ONNX_SUFFIX}",
        )
    if path.suffix == FOLDED and not path.is_dir():
        return load_folded(path, device, trust, face_detector)
    return load_run(Run(path), device, base, trust, face_detector)


def is_exported(source: str) -> bool:
    """Whether a source is an exported detector, which needs no torch, going by its name."""
    return source.endswith(ONNX_SUFFIX) and not is_address(source)


def load_onnx(
    path: Path, device: str | None, base: str | None, face_detector: Callable[[], FaceDetector]
) -> LoadedDetector:
    """The detector in an ONNX file of `fmsd export`, run without torch.

    Raises:
        InputError: see `fmsd.inference.onnx_scorer.OnnxScorer`; or an argument has no effect.
    """
    from fmsd.inference.onnx_scorer import OnnxScorer

    if base is not None:
        raise InputError(
            f"base={base} would have no effect: {path} has all weights", "leave it out"
        )
    if device is not None:
        parse_device(device)
    scorer = OnnxScorer(path, device)
    warn_of_default_crops(path, scorer.facts)
    return LoadedDetector(scorer.facts, scorer, face_detector, scorer.unusual_limit)


def warn_of_default_crops(path: Path, facts: DetectorFacts) -> None:
    """Warns of a file whose run did not record how the faces of its training were cropped."""
    if not facts.crops_known:
        log.warning(
            "%s does not say how the faces of its training data were cropped: faces are cropped as "
            "fmsd extract does by default. Scores of faces that are cropped otherwise mean little; "
            "%s.",
            path,
            CROPS_REMEDY,
        )


def load_run(
    run: Run,
    device: str | None,
    base: str | None,
    trust: object,
    face_detector: Callable[[], FaceDetector],
) -> LoadedDetector:
    """The detector of a run; see `load_detector`.

    Raises:
        InputError: the run is not finished, a file of it is not what its record says, or its base
            weights are missing.
    """
    check_run_record(run)
    from fmsd.engine.detectors import build_detector, load_folded_detector
    from fmsd.engine.trainer import single_process_trainer
    from fmsd.inference.run_facts import feature_bank, run_facts
    from fmsd.inference.torch_scorer import TorchScorer

    trainer = {} if device is None else device_settings(device)
    config: Any = load_run_config(run.config, trust, built=("backbone", "trainer"))
    config = OmegaConf.merge(config, {"backbone": base_override(base), "trainer": trainer})
    facts = run_facts(run)
    with quiet_lightning():
        try:
            single = single_process_trainer(build(config.trainer), run.folder)
        except InputError as error:
            if device is not None:
                raise
            raise InputError(error.message, "give device=cpu") from error
    place = single.strategy.root_device
    make = partial(build_detector, build(config.backbone), place, single.precision)
    detector = load_folded_detector(run, make).to(place).eval()
    bank = feature_bank(run)
    scorer = TorchScorer(detector, facts.size, bank, single.precision_plugin.forward_context)
    return LoadedDetector(
        facts,
        scorer,
        face_detector,
        None if bank is None else bank.limit,
        scorer.heat,
        scorer.map_name,
    )


def load_folded(
    path: Path,
    device: str | None,
    trust: object,
    face_detector: Callable[[], FaceDetector],
) -> LoadedDetector:
    """The detector in a file of `fmsd fold`; see `load_detector`.

    The file has no features of validation data: what is unusual is not known.

    Raises:
        InputError: the file is missing or damaged, or has no facts beside its weights.
    """
    remedy = "fold its run again with this version of fmsd"
    written = read_folded(path, remedy)
    import torch

    from fmsd.inference.torch_scorer import TorchScorer

    config = {"backbone": written["backbone"]}
    check_loaded(config, path, trusted_prefixes(trust), built=("backbone",))
    facts = read_facts(written["facts"], path, remedy)
    warn_of_default_crops(path, facts)
    backbone = OmegaConf.create({"backbone": written["backbone"] | {"weights": str(path)}}).backbone
    if device is None:
        best = torch.accelerator.current_accelerator(check_available=True)
        place = torch.device("cpu") if best is None else best
    else:
        device_settings(device)  # checks it
        place = torch.device(device)
    scorer = TorchScorer(build(backbone)().to(place).eval(), facts.size)
    return LoadedDetector(facts, scorer, face_detector, heat=scorer.heat, map_name=scorer.map_name)


def read_folded(path: Path, remedy: str) -> dict[str, Any]:
    """The settings of the backbone, and the facts, in the metadata of a folded file.

    Raises:
        InputError: the file is missing or damaged, or was written without them.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"There is no file {path}", "correct the path")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        found = {key: json.loads(metadata[key]) for key in ("backbone", "facts")}
    except KeyError as error:
        raise InputError(
            f"{path} holds weights alone: neither the settings of their network nor thresholds",
            f"give the folder of their run, or {remedy}",
        ) from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({reason(error)})", remedy) from error
    if not all(isinstance(value, dict) for value in found.values()):
        raise InputError(f"{path} is damaged: its metadata are no settings", remedy)
    return found


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps Lightning from logging which devices there are and what else could be installed."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def device_settings(device: str) -> dict[str, object]:
    """The settings of a trainer that computes on a device of torch.

    Raises:
        InputError: there is no device of that name, or torch sees none here.
    """
    import torch

    kind, index = parse_device(device)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device=mps: torch sees no Apple GPU here", "give device=cpu")
    count = torch.cuda.device_count() if kind == "cuda" else 0
    if kind == "cuda" and not count:
        raise InputError(f"device={device}: torch sees no CUDA device here", "give device=cpu")
    if kind == "cuda" and index is not None and index >= count:
        known = ", ".join(f"cuda:{number}" for number in range(count))
        raise InputError(
            f"device={device}: torch sees {count} CUDA devices here", f"give one of {known}"
        )
    return {"accelerator": kind, "devices": 1 if index is None else [index]}


def parse_device(device: str) -> tuple[str, int | None]:
    """Kind and index of a device; None for no index.

    Raises:
        InputError: no device has that name.
    """
    match = re.fullmatch(r"(cpu|cuda|mps)(?::(\d{1,3}))?", str(device))
    if match is None or (match[1] != "cuda" and match[2]):
        raise InputError(f"device={device} is no device", "give cpu, cuda, cuda:1 or mps")
    return match[1], int(match[2]) if match[2] else None
