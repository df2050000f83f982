"""Translates errors of Hydra and OmegaConf into one sentence with a remedy."""

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import hydra
import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from fmsd.cli.conf_files import (
    base_files,
    choice_file,
    choices,
    dotted_values,
    groups,
    read_conf_file,
)
from fmsd.cli.hydra_compat import is_swept
from fmsd.cli.options import is_sweep, split_options
from fmsd.cli.override_kinds import check_kinds, override_text
from fmsd.cli.overrides import PATHS, suggestions
from fmsd.errors import InputError, error_chain
from fmsd.machine_errors import memory_error
from fmsd.package_files import CONF
from fmsd.quoting import hydra_quote

LAUNCHERS = {
    "hydra/launcher/submitit": ("SLURM needs the package hydra-submitit-launcher", "'fmsd[slurm]'"),
    "hydra/launcher/joblib": (
        "This launcher needs the package hydra-joblib-launcher",
        "'fmsd[joblib]'",
    ),
    "hydra/launcher/ray": (
        "This launcher needs the packages ray and hydra-ray-launcher",
        "'fmsd[ray]'; pip install --no-deps 'hydra-ray-launcher==1.2.2'",
    ),
    "hydra/sweeper/optuna": (
        "This sweeper needs the package hydra-optuna-sweeper",
        "'fmsd[optuna]'",
    ),
}
"""By prefix of a plugin's configuration: the message if it is missing, and what pip installs."""

MIXED = ("trainer.devices", "frames", "head.normalise")
"""Keys whose default is a number or a bool and that also accept text."""

PLACES = {
    "train": "runs/METHOD_DATA/TIME",
    "evaluate": "RUN/evaluations/TIME",
}
"""By verb without a key for its results: the folder that it makes for them."""

CONFIG_ERRORS = (HydraException, yaml.YAMLError)
"""Errors of configuration files, beside those of OmegaConf."""


def without_worker_traceback(error: InputError) -> InputError:
    """An input error that a loader process raised, without that process's traceback.

    torch raises it again in the training process as `InputError(traceback)`: with the traceback as
    its message, whose last line is the error's class and sentence, and without a remedy.
    """
    if error.remedy:
        return error
    name = re.escape(f"{type(error).__module__}.{type(error).__qualname__}")
    sentences = re.split(rf"^{name}: ", error.message, flags=re.MULTILINE)
    return error if len(sentences) == 1 else type(error)(sentences[-1].strip().removesuffix("."))


def translate_hydra_error(  # noqa: PLR0911  one for each class of errors
    error: Exception, verb: str, overrides: Sequence[str]
) -> InputError:
    """An error of Hydra or OmegaConf as an input error; an input error that caused it unchanged.

    Args:
        overrides: those of the command line.
    """
    text = " ".join(str(error if str(error) else error.__cause__).split())
    for cause in error_chain(error, suppressed=True):  # OmegaConf hides those of its resolvers
        if isinstance(cause, InputError):
            return without_worker_traceback(cause)
        if refusal := memory_error(cause):  # may come anywhere
            return refusal
        if isinstance(cause, OverrideParseException):
            return _unreadable_override(cause.override, verb)
        if isinstance(cause, MissingConfigException):
            return _missing_file(cause, text)
        if match := re.search(r"Environment variable '(.+)' not found", str(cause)):
            return InputError(
                f"{getattr(error, 'full_key', None) or 'A setting'} looks up the environment "
                f"variable {match[1]}, which is not set",
                "set it",
            )
        if isinstance(cause, MissingMandatoryValue) and cause.full_key:
            return _missing_value(str(cause.full_key), verb)
        if (
            isinstance(cause, (ConfigAttributeError, ConfigKeyError))
            and cause.full_key
            and isinstance(error, ConfigCompositionException)
        ):
            return _unknown_key(str(cause.full_key), verb, overrides)
        if isinstance(cause, yaml.MarkedYAMLError):
            return InputError(
                f"A configuration file is no YAML: {' '.join(str(cause).split())}",
                "correct that line",
            )
    if (swept := _first_swept(overrides)) is not None:
        return _no_sweep(swept, verb, overrides)
    return _translate_text(text, verb, overrides)


def _no_sweep(swept: str, verb: str, overrides: Sequence[str]) -> InputError:
    """The refusal of an override with several values on a command line that is no sweep."""
    key, _, values = swept.partition("=")
    if key in groups(verb):
        return InputError(
            f"{swept} are several choices", f"give each a job of its own with -m {swept}"
        )
    if isinstance(default_values(verb, overrides, key).get(key), int | float):
        return InputError(
            f"{swept} are several values", f"give each to a job of its own with -m {swept}"
        )
    return InputError(
        f"{swept} are several values",
        f"give them as a list, {key}={shlex.quote(f'[{values}]')}, or each to a job of its own "
        "with -m",
    )


def _translate_text(text: str, verb: str, overrides: Sequence[str]) -> InputError:
    """The input error for the text of a Hydra error.

    Hydra raises ConfigCompositionException for all of them, and the key is only in its text.
    """
    text = re.sub(
        r"\b\w+ raised while resolving interpolation: ", "unresolved interpolation: ", text
    )
    if match := re.search(r"You must specify '(\w+)'|Missing mandatory value: (\S+)", text):
        return _missing_value(match[1] or match[2], verb)
    if match := re.search(
        r"config group '([^']+)' does not exist|Could not override '([^'@]+)'", text
    ):
        return _unknown_key(match[1] or match[2], verb, overrides)
    if match := re.search(r"An item is already at '([^']+)'", text):
        return InputError(
            f"{match[1]} exists, so it cannot be added", f"leave the + out: {match[1]}=VALUE"
        )
    if match := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return _unknown_key(match[1], verb, overrides)
    if re.search(r"hydra\.launcher\.(tasks|gpus)_per_node", text):
        return InputError(
            "hydra/launcher=slurm starts a task per device",
            "give their number with trainer.devices=NUMBER",
        )
    return InputError(
        f"The configuration cannot be composed: {text.rstrip('.')}",
        f"correct it; fmsd {verb} --help shows all keys",
    )


def _unreadable_override(override: str, verb: str) -> InputError:
    """The refusal of an override that Hydra cannot parse, with its quoted form as the remedy."""
    key, sign, value = override.partition("=")
    if not sign:
        return InputError(
            f"{override!r} is no override", f"write key=value; fmsd {verb} --help shows all keys"
        )
    quoted = (
        shlex.quote(f"{key}={hydra_quote(value)}")
        if re.search(r"['\"\\]", value)
        else f"'{key}=\"{value}\"'"
    )
    return InputError(
        f"{override} holds characters that have a meaning of their own",
        f"quote the value: {quoted}",
    )


def _missing_file(error: MissingConfigException, text: str) -> InputError:
    """The refusal of a choice, or an entry of a defaults list, without a configuration file."""
    name = str(error.missing_cfg_file)
    for start, (message, packages) in LAUNCHERS.items():
        if name.startswith(start):
            return InputError(message, f"install it with: pip install {packages}")
    group, _, choice = name.rpartition("/") if name.startswith("hydra/") else name.partition("/")
    # If another file names it, the text begins with that file; hydra/config stands for the command
    # line's choices of Hydra's own groups
    match = re.match(r"In '([^']+/[^']+)': Could not (?:load|find) '", text)
    if match and match[1] != "hydra/config":
        return InputError(
            f"The configuration file {match[1]}.yaml names {name}, which does not exist",
            "correct its defaults list",
        )
    visible = {option for option in error.options or () if not option.startswith("_")}
    options = sorted(visible.union(choices(group)))
    by_spelling = {_spelling(option): option for option in reversed(options)}
    close = difflib.get_close_matches(_spelling(choice), list(by_spelling), n=1, cutoff=0.7)
    meant = f" (did you mean {group}={by_spelling[close[0]]}?)" if close else ""
    known = f"choose one of {', '.join(options)}" if options else f"there is none in {CONF / group}"
    return InputError(
        f"There is no {group}={choice}{meant}",
        f"{known}, install the plugin that has it, or give your own folder of them with "
        "--config-dir=FOLDER",
    )


def _spelling(choice: str) -> str:
    """A choice without case and separators, for comparison."""
    return choice.casefold().replace("-", "").replace("_", "").replace("+", "p")


def _missing_value(key: str, verb: str) -> InputError:
    """The refusal of a command without a key that has no default."""
    if options := groups(verb).get(key):
        return InputError(f"fmsd {verb} needs {key}", f"give {key}=NAME: {', '.join(options)}")
    return InputError(
        f"fmsd {verb} needs {key}",
        f"give it as {key}={'PATH' if PATHS.fullmatch(key) else 'VALUE'}",
    )


def _unknown_key(key: str, verb: str, overrides: Sequence[str]) -> InputError:
    """The refusal of a key that the configuration does not have, with similar keys."""
    if verb in ("evaluate", "explain", "export", "merge") and key.startswith(("data.", "trainer.")):
        return InputError(
            f"There is no config key {key!r} unless {key.partition('.')[0]}=NAME is given, too",
            f"add that; fmsd {verb} --help shows all keys",
        )
    if verb in PLACES and key.lower() in ("out", "output", "output_dir", "folder"):
        return InputError(
            f"fmsd {verb} has no key {key!r}: it writes into {PLACES[verb]}",
            "choose another folder with hydra.run.dir=FOLDER",
        )
    meant = suggestions(key, list(default_values(verb, overrides, key)), groups(verb))
    if verb in ("score", "import") and key == "output":
        meant = ["scale", "out"]
    hint = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    return InputError(f"There is no config key {key!r}{hint}", f"fmsd {verb} --help shows all keys")


def _first_swept(overrides: Sequence[str]) -> str | None:
    """The first override with several values on a command line that is no sweep."""
    if is_sweep(overrides):
        return None
    for override in split_options(overrides)[1]:
        try:
            if "=" in override and is_swept(override):
                return override
        except HydraException:
            continue
    return None


def default_values(verb: str, overrides: Sequence[str], left_out: str) -> dict[str, Any]:
    """By dotted key, the values of a verb's configuration with the given choices of groups.

    The first choice of a sweep counts; overrides of other keys are left out.

    Args:
        left_out: a group whose choice is not applied, as it is the mistake.
    """
    known = groups(verb)
    chosen = [
        override.partition(",")[0]
        for override in overrides
        if override.partition("=")[0].lstrip("+") in known
        and not override.startswith(f"{left_out}=")
    ]
    data = [choice for choice in chosen if choice.startswith("data=")]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for attempt in (chosen, data, ["data=folder"]):
            try:
                config = OmegaConf.to_container(hydra.compose(verb, attempt))
            except CONFIG_ERRORS:
                continue
            return dotted_values(config)
    return {}


def check_override_types(
    verb: str, overrides: Sequence[str], config: DictConfig, chosen: Mapping[str, Any]
) -> None:
    """Rejects overrides that set text where the configuration files have a number or a bool.

    Args:
        overrides: of one job.
        config: the configuration with these overrides.
        chosen: the choice of each group.

    Raises:
        InputError: such an override, or one that sets a value where further keys lie.
    """
    keys = [override.partition("=")[0].lstrip("+") for override in overrides if "=" in override]
    values = {key: OmegaConf.select(config, key) for key in keys}
    defaults = packaged_values(verb, chosen) if keys else {}
    check_kinds(verb, values, defaults)
    for key, value in values.items():
        replaced = isinstance(value, DictConfig) or (value is None and "." in key)
        below = [name.removeprefix(f"{key}.") for name in defaults if name.startswith(f"{key}.")]
        if below and not replaced and key not in groups(verb):
            raise InputError(
                f"{key}={override_text(value)} is no setting: {key} has {', '.join(below)}",
                f"give e.g. {key}.{below[0]}=VALUE",
            )
    for key, value in values.items():
        default = defaults.get(key)
        if key not in MIXED and isinstance(value, str) and isinstance(default, int | float):
            fault = "neither true nor false" if isinstance(default, bool) else "no number"
            raise InputError(
                f"{key}={value} is {fault}", f"give e.g. {key}={override_text(default)}"
            )


def packaged_values(verb: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted key, the values in the packaged files of a verb and of the choices of its groups.

    Interpolations and missing values are left out: they have no type.
    """
    values = dotted_values(read_conf_file(CONF / f"{verb}.yaml").values)
    for group, choice in chosen.items():
        file = choice_file(group, choice)
        for part in base_files(file) if file.is_file() else ():
            package, content = read_conf_file(part, group)
            values |= {
                key: value
                for key, value in dotted_values(content, package).items()
                if not str(value).startswith(("${", "???"))
            }
    return values
