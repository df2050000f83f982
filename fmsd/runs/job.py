"""What the folder of a run tells about its job: what was chosen for it, and the sweep that it belongs to."""

from pathlib import Path
from typing import Any

from fmsd.settings import parse_settings

SWEEP_FILES = ("sweep.json", "multirun.yaml")
"""What lies in the folder of a sweep before its first job begins: our own file, and Hydra's."""


def read_configuration(folder: Path) -> dict[str, Any]:
    """The composed configuration of a run."""
    return parse_settings(
        (folder / "config.yaml").read_text(encoding="utf-8"), folder / "config.yaml"
    )


def sweep_folder(folder: Path) -> Path | None:
    """The folder of the sweep that a run is a job of; None where it is none."""
    return next(
        (
            above
            for above in folder.absolute().parents
            if any((above / name).is_file() for name in SWEEP_FILES)
        ),
        None,
    )


def choice_tags(folder: Path) -> dict[str, str]:
    """What was chosen for a run, by the group it was chosen from."""
    choices = read_configuration(folder)["choices"]
    return {
        group: str(choices[group])
        for group in ("method", "data", "backbone", "wrapper")
        if group in choices
    }
