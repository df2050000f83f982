"""Loads a detector for predictions from wherever it is: the folder of a run, or a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fmsd.cli.build import build
from fmsd.cli.data_config import absolute_path
from fmsd.cli.loaded_runs import base_override, check_run_record
from fmsd.cli.trust import load_run_config
from fmsd.data.extraction.faces import FaceDetector, YuNet
from fmsd.errors import InputError
from fmsd.inference.loading import LoadedDetector
from fmsd.runs.folder import Run

HUB = "hf://"
"""The beginning of the address of a detector on the hub."""

ONNX, FOLDED = ".onnx", ".safetensors"
"""Suffixes of exported detectors and of folded weights."""


def load_detector(
    source: str,
    base: str | None = None,
    trust: object = (),
    trainer: DictConfig | None = None,
    face_detector: Callable[[], FaceDetector] = YuNet,
) -> LoadedDetector:
    """The detector of a run, ready to score files and images.

    Args:
        source: the folder of a run.
        base: where the backbone's pretrained weights are, if they have moved since the run.
        trust: what the run's configuration may name beside the declared targets, see
            `fmsd.cli.trust`.
        trainer: settings that replace those of the run's trainer, such as the device.
        face_detector: builds the detector of faces.

    Raises:
        InputError: there is no detector, or it cannot be used.
    """
    if source.startswith(HUB):
        raise InputError(
            f"{source} cannot be loaded from the hub", "download it and give its folder"
        )
    path = Path(absolute_path(source))
    if path.suffix == ONNX:
        raise InputError(f"{source} is no run", "give the folder of a run")
    if path.suffix == FOLDED and path.is_file():
        raise InputError(
            f"{source} holds weights alone: neither the name of their network nor thresholds",
            "give the folder of the run that it was folded from",
        )
    return load_run(Run(path), base, trust, trainer, face_detector)


def load_run(
    run: Run,
    base: str | None,
    trust: object,
    trainer: DictConfig | None,
    face_detector: Callable[[], FaceDetector],
) -> LoadedDetector:
    """The detector of a run; see `load_detector`.

    Raises:
        InputError: the run is not finished, a file of it is not what its record says, or its base
            weights are missing.
    """
    from fmsd.engine.detectors import build_detector, load_folded_detector
    from fmsd.engine.trainer import single_process_trainer
    from fmsd.inference.run_facts import feature_bank, run_facts
    from fmsd.inference.torch_scorer import TorchScorer

    check_run_record(run)
    config = run_config(run, base, trust, trainer)
    size = OmegaConf.select(config, "data.size") or config.backbone.size
    video_score = OmegaConf.select(config, "data.video_score") or "mean"
    facts = run_facts(run, int(size), str(video_score))
    single = single_process_trainer(build(config.trainer), run.folder)
    device = single.strategy.root_device
    make = partial(build_detector, build(config.backbone), device, single.precision)
    detector = load_folded_detector(run, make).to(device).eval()
    bank = feature_bank(run)
    scorer = TorchScorer(detector, facts.size, bank, single.precision_plugin.forward_context)
    return LoadedDetector(
        facts,
        scorer,
        face_detector,
        None if bank is None else bank.limit,
        scorer.heat,
    )


def run_config(run: Run, base: str | None, trust: object, trainer: DictConfig | None) -> Any:
    """The checked configuration of a run with its base and its trainer as they are given.

    Raises:
        InputError: it is missing, damaged, or not trusted.
    """
    config: Any = load_run_config(run.config, trust, built=("backbone", "trainer"))
    config = OmegaConf.merge(config, {"backbone": base_override(base)})
    if trainer is not None:
        whole = "_target_" in trainer
        config.trainer = trainer if whole else OmegaConf.merge(config.trainer, trainer)
    return config
