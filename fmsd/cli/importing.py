"""The verb import: recognises a published detector, and composes the configuration of its run."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fmsd.cli.build import build
from fmsd.cli.conf_files import read_conf_file
from fmsd.cli.data_config import absolute_path
from fmsd.cli.hydra_compat import task_overrides
from fmsd.cli.recorded_config import recorded_config
from fmsd.errors import InputError
from fmsd.hub_addresses import is_address
from fmsd.package_files import CONF
from fmsd.paths import expand_home, file_digest


def import_detector(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd import: makes a run of a published detector's file."""
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
        name=None if config.name is None else str(config.name),
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
