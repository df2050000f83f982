"""The verb score: makes a detector of the user's own code, and composes the run of its scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from fmsd.checks import check_range
from fmsd.cli.build import data_factory
from fmsd.cli.data_config import absolute_path, add_test_sources, check_outside, check_source
from fmsd.cli.hydra_compat import task_overrides
from fmsd.cli.recorded_config import recorded_config
from fmsd.errors import InputError
from fmsd.json_output import print_error
from fmsd.names import check_label

if TYPE_CHECKING:
    import torch

DECLARATIONS = ("takes", "size", "mean", "std", "scale", "higher", "margin")
"""The keys that stand in for attributes of a detector."""


def score(config: DictConfig, folder: Path, command: list[str]) -> int:
    """fmsd score: scores test datasets with a detector of other code.

    Returns:
        1 where the detector scores no frame.
    """
    from fmsd.engine.detectors import seeded
    from fmsd.inference.external_detector import ExternalDetector, declaration
    from fmsd.inference.external_factory import make_detector
    from fmsd.inference.external_scoring import DetectorError
    from fmsd.metrics.coverage import check_coverage
    from fmsd.tasks import score as task

    word, out = str(config.detector.factory), Path(absolute_path(config.out))
    overrides = [as_typed(each, word) for each in task_overrides()]
    plain: Any = OmegaConf.to_container(config)
    if idle := [each for each in overrides if each.lstrip("+~").startswith("backbone")]:
        raise InputError(
            f"{idle[0]} would have no effect: the detector brings its own network", "leave it out"
        )
    check_range("seed", config.seed, 0)
    check_coverage(config.coverage)
    check_label(config.label)
    check_range("data.batch_size", config.data.batch_size, 1)
    device = choose_device(config.device)
    add_test_sources(config.data)
    check_source(config.data, overrides)
    check_outside(str(out), config.data)
    with seeded(config.seed):
        made = make_detector(word, plain["args"])
    declared = declaration(made.call, {key: plain[key] for key in DECLARATIONS})
    try:
        task.score(
            detector=ExternalDetector(made.call, declared, device),
            data=data_factory(config.data)(size=declared.size or 0),
            folder=out,
            about={"detector": made.name, "sha256": made.digest, "files": dict(made.files)},
            config=recorded_config(run_config(config)),
            command=[as_typed(each, word) for each in command],
            overrides=overrides,
            label=config.label,
            coverage=config.coverage,
            seed=config.seed,
        )
    except DetectorError as error:
        print_error(error)
        return 1
    return 0


def as_typed(override: str, word: str) -> str:
    """An override as it was typed: Hydra gets `detector=` as a mapping.

    Args:
        word: the value of `detector=`.
    """
    return f"detector={word}" if override.startswith("detector={") else override


def run_config(config: DictConfig) -> DictConfig:
    """The configuration that the run keeps: without the groups that build nothing."""
    keys = [key for key in config if key not in ("backbone", "out", "protocol", "select", "suite")]
    kept: Any = OmegaConf.masked_copy(config, [str(key) for key in keys])
    with open_dict(kept):
        kept.detector = config.detector.factory
        kept.trainer = None
    return kept


def choose_device(name: str | None) -> "torch.device":
    """The device of that name; None for a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    import torch

    from fmsd.cli.detectors import parse_device

    if name is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    kind, index = parse_device(name)
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    if (index or 0) >= int(there[kind]):
        raise InputError(f"device={name}: torch sees no such device here", "give device=cpu")
    return torch.device(name)
