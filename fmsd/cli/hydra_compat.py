"""The parts of Hydra and OmegaConf in use that they do not document; pyproject.toml bounds both."""

from collections.abc import Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf


def task_overrides(overrides: ListConfig | None = None) -> list[str]:
    """The overrides of a job as they were typed; iterating over Hydra's list resolves them.

    Args:
        overrides: a list of Hydra; None for that of the job that runs.
    """
    typed: Any = HydraConfig.get().overrides.task if overrides is None else overrides
    return [str(override) for override in OmegaConf.to_container(typed) or ()]


def parse_value(text: str) -> Any:
    """The value that Hydra reads from the text behind the equals sign of an override."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def is_swept(override: str) -> bool:
    """Whether an override gives its key several values.

    Raises:
        hydra.errors.HydraException: Hydra cannot parse it.
    """
    return OverridesParser.create().parse_override(override).is_sweep_override()


def values_by_key(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The values that the jobs of a sweep give each key; of an interval its text.

    To be called while Hydra runs: a glob over choices looks into its configuration files.
    """
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides(list(overrides))
    return {override.get_key_element(): _job_values(override) for override in parsed}


def _job_values(override: Override) -> list[str]:
    if override.is_discrete_sweep():
        return sorted(override.sweep_string_iterator())
    if override.is_sweep_override():
        return [(override.input_line or "").partition("=")[2]]
    return [override.get_value_element_as_str()]


def group_choices(group: str) -> list[str]:
    """The choices of a group in all folders of configuration files that Hydra searches."""
    return GlobalHydra.instance().config_loader().get_group_options(group)


def dotted_key_of(node: DictConfig) -> str:
    """The dotted key of a node in the configuration that it is a part of."""
    return str(node._get_full_key(""))
