"""Hydra's and OmegaConf's errors as one sentence with a remedy."""

import difflib
import re
from collections.abc import Iterator, Sequence

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from fmsd.cli.files import CONF
from fmsd.errors import InputError

SIGNS = {
    "'hydra/launcher/submitit": ("SLURM needs the package hydra-submitit-launcher", "install it with: pip install 'fmsd[slurm]'"),
    "'hydra/launcher/joblib'": ("This launcher needs hydra-joblib-launcher", "install it with: pip install 'fmsd[joblib]'"),
    "'hydra/launcher/ray'": ("This launcher needs hydra-ray-launcher", "install it with: pip install 'fmsd[ray]'"),
    "'hydra/sweeper/optuna'": ("This sweeper needs hydra-optuna-sweeper", "install it with: pip install 'fmsd[optuna]'"),
    "hydra.launcher.tasks_per_node": ("hydra/launcher=slurm starts a task per device", "give their number with trainer.devices=NUMBER"),
}
"""Message and remedy for errors of launchers, by a part of their text."""


def unwrapped(error: InputError) -> InputError:
    """An input error as a loader process raised it; torch hands it on with that process's traceback as its only text."""
    text = error.message.rpartition("InputError: ")[2]
    return error if text == error.message else type(error)(text.strip().removesuffix("."))


def explained(error: Exception, verb: str, overrides: Sequence[str]) -> InputError:
    """Hydra's and OmegaConf's errors as one sentence with a remedy; our own are that already."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return unwrapped(cause)
        cause = cause.__cause__ or cause.__context__  # OmegaConf's errors of resolvers have it as their context
    text = " ".join(str(error if str(error) else error.__cause__).split())
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1]
        close = difflib.get_close_matches(key, keys(verb, overrides, key), n=1)
        meant = f" (did you mean {close[0]}?)" if close and close[0] != key else ""
        if verb in ("evaluate", "explain", "merge") and key.startswith(("data.", "trainer.")):
            meant = f" unless {key.partition('.')[0]}=NAME is given, too"
        return InputError(f"There is no config key {key!r}{meant}", f"`fmsd {verb} --cfg job` shows all keys")
    told = next((told for sign, told in SIGNS.items() if sign in text), None)
    if match := re.search(r"Ambiguous value for argument '([^'=]+)=([^']*)'", text):
        key, values = match.groups()
        told = (f"{key}={values} are several values", f"give them as a list, {key}='[{values}]', or each to a job of its own with -m")
    if told:
        return InputError(*told)
    if match := re.search(r"Could not find '(\w+)/([^']+)'", text):
        known = sorted(path.stem for path in (CONF / match[1]).glob("[!_]*.yaml"))
        return InputError(
            f"There is no {match[1]}={match[2]}", f"choose one of {', '.join(known)}, or give your own folder of them with --config-dir=FOLDER"
        )
    if match := re.search(r"Missing mandatory value: (\S+)|You must specify '(\w+)'", text):
        key = match[1] or match[2]
        return InputError(f"fmsd {verb} needs {key}", f"give it as {key}=VALUE")
    odd = any(word in text for word in ("no viable alternative", "Lexer", "token"))
    hint = "quote values with special characters: key='\"~/data\"'" if odd else f"`fmsd {verb} --help` shows how it is written"
    return InputError(f"The configuration cannot be composed: {text.rstrip('.')}", hint)


def keys(verb: str, overrides: Sequence[str], wrong: str) -> list[str]:
    """Every dotted key of a verb's configuration under the given group choices."""
    choices = [override for override in overrides if re.fullmatch(r"\w+=[^,]+", override) and not override.startswith(f"{wrong}=")]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return list(_dotted(OmegaConf.to_container(hydra.compose(verb, choices)), ""))
        except HydraException:
            return []


def _dotted(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{prefix}{name}"
            yield from _dotted(value, f"{prefix}{name}.")
