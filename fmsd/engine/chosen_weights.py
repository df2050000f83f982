"""The chosen weights of a training: loaded from their checkpoint and written into the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fmsd.engine.adaptation import AdaptedDetector
from fmsd.engine.checkpoints import read_checkpoint
from fmsd.engine.learner import Learner
from fmsd.engine.mask_files import write_history
from fmsd.errors import InputError
from fmsd.peft import adapter
from fmsd.peft.inject import fold_layers
from fmsd.peft.spectra import effective_spectra, spectra_json
from fmsd.runs.folder import SPECTRA, Run


@dataclass(frozen=True)
class Chosen:
    """When the chosen weights were reached.

    Args:
        epoch: counted from 0.
        steps: optimizer steps.
    """

    epoch: int
    steps: int


def load_chosen(learner: Learner, checkpoint: Path, validated: bool) -> Chosen:
    """Loads the chosen checkpoint into the learner.

    Args:
        validated: whether an epoch was validated, after which the checkpoint was written.

    Raises:
        InputError: it is damaged or missing, or was never written.
    """
    if not checkpoint.is_file():
        if validated:
            raise InputError(
                f"{checkpoint}, with the weights that training chose, is missing",
                "put it back and resume the run, or train anew in another folder",
            )
        raise InputError(
            "Training ended before the first validation, so no weights could be chosen",
            "raise trainer.max_steps to at least one epoch",
        )
    content = read_checkpoint(checkpoint)
    learner.load_state_dict(content["state_dict"])
    return Chosen(int(content["epoch"]), int(content["global_step"]))


def write_chosen(run: Run, adapted: AdaptedDetector, base: str, about: Mapping[str, Any]) -> None:
    """Writes the adapter, its spectra and its mask history, then folds the adapter into the model.

    Args:
        base: the fingerprint of the weights before adaptation.
        about: method, backbone and protocol, see `describe_run`.
    """
    model = adapted.model
    if adapted.spectra:
        after = effective_spectra(model, list(adapted.spectra))
        run.write(SPECTRA, spectra_json(adapted.spectra, after))
    backbone = about["backbone"]
    description = {"name": backbone["name"], "backbone": backbone, "hash": base}
    rest = {key: value for key, value in about.items() if key != "backbone"}
    adapter.save(model, run.folder, description, rest)
    write_history(run, adapted.adaptation.history)
    fold_layers(model.backbone)


def describe_run(config: str, method: str, selection: str) -> dict[str, Any]:
    """Method, backbone and protocol of a run, as its adapter describes them.

    Args:
        config: the composed configuration as YAML text.
        method: the method's name.
        selection: the rule that chose the weights.
    """
    settings = yaml.safe_load(config)
    return {
        "backbone": settings["backbone"],
        "method": {"name": method, **settings["method"]},
        "protocol": settings["data"] | {"selection": selection},
    }
