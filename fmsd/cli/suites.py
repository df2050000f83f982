"""Suites: sets of test datasets with a name, the files of `conf/suite`."""

from collections.abc import Mapping

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fmsd.cli.conf_files import choice_file, choices, read_conf_file
from fmsd.cli.hydra_compat import task_overrides
from fmsd.errors import InputError

GROUP = "suite"
"""The group of the configuration."""


def suites() -> Mapping[str, list[str]]:
    """The test datasets of each suite of fmsd and of the installed plugins.

    A suite without a list of its own, as `in_dataset`, is left out.
    """
    listed = {name: read_conf_file(choice_file(GROUP, name)).values for name in choices(GROUP)}
    return {
        name: [str(dataset) for dataset in values["test"]]
        for name, values in listed.items()
        if isinstance(values.get("test"), list)
    }


def check_suite(data: DictConfig) -> None:
    """Rejects a suite beside other test datasets, and one whose file does not name it.

    Args:
        data: the composed configuration, with the suite's test datasets.

    Raises:
        InputError: see above.
    """
    suite = HydraConfig.get().runtime.choices.get(GROUP) if HydraConfig.initialized() else None
    if suite is None:
        return
    keys = [override.partition("=")[0].lstrip("+~") for override in task_overrides()]
    if "data.test" in keys:
        raise InputError(
            f"suite={suite} names the test datasets, and so does data.test",
            "leave one of them out",
        )
    if data.get("suite") != suite or "test" not in data:
        raise InputError(
            f"The file of suite={suite} does not set a suite of this name",
            f"write '# @package data' as its first line, suite: {suite}, and test: [DATASET, ...]",
        )
