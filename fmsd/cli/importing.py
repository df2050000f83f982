"""The verb import: a published detector, or a file of scores, becomes a run."""

import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from fmsd.checks import check_choice, check_range
from fmsd.cli.build import LOADER_KEYS, build, check_argument_types, data_factory
from fmsd.cli.conf_files import read_conf_file
from fmsd.cli.data_config import absolute_path, add_test_sources, check_outside, check_source
from fmsd.cli.hydra_compat import task_overrides
from fmsd.cli.recorded_config import recorded_config
from fmsd.errors import InputError
from fmsd.hub_addresses import is_address
from fmsd.names import check_label
from fmsd.package_files import CONF
from fmsd.paths import expand_home, file_digest

OF_WEIGHTS = ("format", "backbone")
"""Keys and groups for `weights=` alone."""

OF_SCORES = (
    "data", "protocol", "suite", "scale", "higher", "columns", "level", "by", "root", "size",
    "labels", "coverage", "seed",
)  # fmt: skip
"""Keys and groups for `scores=` alone."""


def import_run(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd import: makes a run of a published detector, or of the scores of another program.

    Raises:
        InputError: not exactly one of both is given, or a key has no effect.
    """
    check_label(config.label)
    given = [key for key in ("weights", "scores") if config[key] is not None]
    if len(given) != 1:
        raise InputError(
            f"fmsd import needs {'one of' if not given else 'only one of'} weights and scores",
            "give weights=FILE for a published detector, or scores=FILE data=NAME for the scores "
            "of another program",
        )
    keys = [override.lstrip("+~").partition("=")[0] for override in task_overrides()]
    others = OF_SCORES if given == ["weights"] else OF_WEIGHTS
    if idle := [key for key in keys if re.split("[.@]", key)[0] in others]:
        raise InputError(f"{idle[0]} would have no effect with {given[0]}=FILE", "leave it out")
    if given == ["weights"]:
        import_detector(config, command)
    else:
        import_scores(config, command)


def import_scores(config: DictConfig, command: list[str]) -> None:
    """Makes a run of a file of scores."""
    from fmsd.metrics.coverage import check_coverage
    from fmsd.metrics.score_scale import HIGHER, SCALES
    from fmsd.tasks import import_scores as task

    plain: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, list(OF_SCORES[3:-1])))
    if config.data is None or "_target_" not in config.data:
        raise InputError(
            "fmsd import scores=FILE needs the data that the scores are of", "give data=NAME"
        )
    values = {key: value for key, value in plain.items() if value is not None}
    check_argument_types(task.ScoreSettings, values, "")
    check_choice("scale", config.scale, SCALES)
    check_choice("higher", config.higher or "fake", HIGHER)
    check_choice("labels", config.labels, ("check", "ours"))
    check_range("size", config.size, 1, null="a size that is not known")
    check_coverage(config.coverage)
    if idle := [each for each in task_overrides() if loader_key(each)]:
        raise InputError(f"{idle[0]} would have no effect: no image is read", "leave it out")
    path, out = expand_home(config.scores), Path(absolute_path(config.out))
    with open_dict(config.data):
        for key in [key for key in config.data if key in LOADER_KEYS]:
            del config.data[key]  # they follow settings of a training
    add_test_sources(config.data)
    check_source(config.data, task_overrides())
    check_outside(str(out), config.data)
    kept = [key for key in OF_SCORES if key not in ("protocol", "suite")]
    run_config: Any = OmegaConf.masked_copy(config, ["scores", "label", *kept])
    with open_dict(run_config):
        run_config.backbone = run_config.trainer = None
    task.import_scores(
        path=path,
        data=data_factory(config.data)(size=config.size or 0),
        folder=out,
        settings=task.ScoreSettings(**values),
        config=recorded_config(run_config),
        command=command,
        overrides=task_overrides(),
        label=config.label,
        seed=config.seed,
    )


def loader_key(override: str) -> bool:
    """Whether an override sets how images are loaded."""
    key = override.lstrip("+~").partition("=")[0]
    return key.startswith("data.") and key.removeprefix("data.") in LOADER_KEYS


def import_detector(config: DictConfig, command: list[str]) -> None:
    """Makes a run of a published detector's file."""
    from fmsd.models.imported import backbone_settings, read_gend_head, recognise_layout
    from fmsd.state import read_state
    from fmsd.tasks import import_detector as task

    check_local(str(config.weights))
    weights, out = expand_home(config.weights), Path(absolute_path(config.out))
    task.check_new(out)
    digest = file_digest(weights) if weights.is_file() else ""
    state = read_state(weights)
    layout = recognise_layout(list(state), str(config.format), str(weights))
    layout = read_gend_head(layout, weights)
    given: Any = OmegaConf.to_container(config.get("backbone") or OmegaConf.create(), resolve=True)
    backbone = {
        "_target_": "fmsd.models.detector.detector",
        "_partial_": True,
        **backbone_settings(state, layout, given, str(weights)),
    }
    choice = HydraConfig.get().runtime.choices.get("backbone")
    choices = {} if choice is None else {"backbone": choice}
    run_config = OmegaConf.create(
        {
            "format": layout.format,
            "seed": 0,
            "backbone": backbone,
            "data": None,
            "trainer": read_conf_file(CONF / "trainer" / "default.yaml").values,
            "choices": choices,
            "overrides": task_overrides(),
        }
    )
    task.import_detector(
        weights=weights,
        digest=digest,
        label=config.label,
        state=state,
        layout=layout,
        detector=build(run_config.backbone),
        backbone=backbone,
        out=out,
        config=recorded_config(run_config),
        command=command,
        overrides=task_overrides(),
        choices=choices,
    )


def check_local(weights: str) -> None:
    """Checks that the file is on this machine.

    Raises:
        InputError: it is an address of the Hub.
    """
    if is_address(weights):
        raise InputError(
            f"weights={weights} is an address of the Hub, and fmsd import downloads nothing",
            "download the file, with its config.json where there is one, and give its path",
        )
