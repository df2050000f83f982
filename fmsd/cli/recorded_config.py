"""The configuration of a run as its `config.yaml` keeps it: resolved, but without secrets.

What a run computed must follow from its `config.yaml`, so settings of the computation are written
as values. All others, where a logger sends results above all, may look up a password in the
environment: `${oc.env:NAME}` is written as it is, and looked up again when the run is loaded.
"""

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from fmsd.cli.conf_files import KeyPath, dotted_key, walk
from fmsd.cli.hydra_compat import parse_value
from fmsd.errors import InputError
from fmsd.quoting import hydra_quote
from fmsd.redaction import (
    COMPUTED,
    REDACTED,
    is_computed,
    is_credential,
    is_source,
    looks_up_credential,
    note_lookup,
    redact_setting,
    redact_settings,
    redact_words,
)
from fmsd.runs.folder import write_text

LOOKUP = "${"
"""How a value begins that is looked up."""


ENVIRONMENT = re.compile(r"oc\.(env|decode):")
"""How the lookup of an environment variable goes on after `LOOKUP`."""


def recorded_config(config: DictConfig) -> str:
    """The text of a run's `config.yaml`.

    Raises:
        omegaconf.errors.OmegaConfBaseException: a value that is looked up does not exist.
    """
    with environment_as_written():
        written: Any = {key: _plain(config, key) for key in config if key != "overrides"}
    recorded = {
        key: _without_credentials(str(key), _plain(config, key), text) if key in COMPUTED else text
        for key, text in written.items()
    }
    if "overrides" in config:
        recorded["overrides"] = OmegaConf.to_container(config.overrides, resolve=False)
    return OmegaConf.to_yaml(OmegaConf.create(redact_settings(recorded)))


def _plain(config: DictConfig, key: Any) -> Any:
    value = "???" if OmegaConf.is_missing(config, key) else config[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _without_credentials(key: str, value: Any, text: Any) -> Any:
    """A resolved setting, where it holds a password or token as it was written.

    Args:
        key: its dotted key.
        text: the same setting with the lookups of environment variables as they were written.
    """
    if isinstance(value, dict) and isinstance(text, dict):
        return {
            name: _without_credentials(f"{key}.{name}", part, text.get(name))
            for name, part in value.items()
        }
    if isinstance(value, list) and isinstance(text, list):
        return [_without_credentials(key, *pair) for pair in zip(value, text, strict=False)]
    if not isinstance(text, str) or LOOKUP not in text:
        return value
    secret = redact_setting(key, value) != value or (is_source(key) and looks_up_credential(text))
    return text if secret else value


@contextlib.contextmanager
def environment_as_written() -> Iterator[None]:
    """Lets `${oc.env:NAME}` stand for itself when a configuration is resolved."""

    def env(name: str, *default: Any, _node_: Any) -> str:
        key = str(_node_._get_full_key(None))
        if not is_computed(key) or is_credential(key):
            note_lookup(name)
        return f"${{oc.env:{','.join([name, *map(_as_argument, default)])}}}"

    def decode(text: Any, _parent_: Any, _node_: Any) -> Any:
        if isinstance(text, str) and LOOKUP in text:
            return f"${{oc.decode:{text}}}"
        return oc.decode(text, _parent_, _node_)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    OmegaConf.register_new_resolver("oc.decode", decode, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
        OmegaConf.register_new_resolver("oc.decode", oc.decode, replace=True)


def _as_argument(value: Any) -> str:
    """The default of a lookup as it is written; one that is a lookup stays one."""
    if value is None:
        return "null"
    return str(value) if LOOKUP in str(value) else hydra_quote(str(value))


def check_lookups(
    key_path: KeyPath, node: Any, config: Any, source: Path, trust: Sequence[str]
) -> None:
    """Rejects lookups in a loaded configuration that `recorded_config` does not write.

    Those that it writes are looked up below trusted targets only; elsewhere they are text.

    Args:
        key_path: that of `node` in `config`.
        source: the file, for the message.
        trust: prefixes of dotted names.
    """
    texts = [*node] if isinstance(node, dict) else [node]
    lookups = [text for text in texts if isinstance(text, str) and LOOKUP in text]
    top = key_path[0] if key_path else ""
    typed = top == "overrides" and len(key_path) > 1  # never resolved
    if not lookups or (typed and not isinstance(node, dict)):
        return
    holder = config
    for part in key_path[:-1]:
        holder = holder[part]
    target = str(holder.get("_target_")) if isinstance(holder, dict) else ""
    written = top not in (*COMPUTED, "overrides") or target.startswith(tuple(trust))
    environment_only = all(ENVIRONMENT.match(part) for part in lookups[0].split(LOOKUP)[1:])
    if isinstance(node, dict) or not (written and environment_only):
        raise InputError(
            f"{source} would look something up: {lookups[0]!r} at {dotted_key(key_path)}",
            "write the value in its place, as runs are written, or if you know this run give "
            "trust='[PACKAGE.]' with the package of the target there",
        )


def give_again(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Sets the values of a loaded run that its file holds without their password or token.

    Args:
        config: of the run.
        overrides: of the command line; those of other keys are ignored.

    Returns:
        The keys that were set.
    """
    lacking = redacted_values(OmegaConf.to_container(config))
    pairs = (override.partition("=") for override in overrides)
    given = {key.lstrip("+"): value for key, _, value in pairs if key.lstrip("+") in lacking}
    for key, value in given.items():
        OmegaConf.update(config, key, parse_value(value))
    return list(given)


def redacted_values(config: Any) -> dict[str, str]:
    """By dotted key, the values of a loaded run that lack their password or token."""
    return {
        dotted_key(key_path): node
        for key_path, node in walk(config)
        if isinstance(node, str) and REDACTED in node and key_path[:1] != ("overrides",)
    }


def check_complete(config: DictConfig, keys: Collection[str], source: Path) -> None:
    """Rejects a loaded run whose file lacks a password or token that is needed now.

    Args:
        keys: prefixes of the dotted keys that are needed.
        source: the file, for the message.
    """
    lacking = redacted_values(OmegaConf.to_container(config))
    if needed := [key for key in lacking if key.startswith(tuple(keys))]:
        raise InputError(
            f"{source} holds {needed[0]} without its password or token ({lacking[needed[0]]})",
            f"give the whole value again: {needed[0]}=VALUE",
        )


def redact_hydra_files(settings: Any) -> None:
    """Takes secrets out of the files that Hydra has written about a job and its sweep.

    Args:
        settings: of Hydra, in its job.
    """
    output, subdir = Path(settings["runtime"]["output_dir"]), settings["output_subdir"]
    files = list((output / subdir).glob("*.yaml")) if subdir is not None else []
    if settings["mode"] == RunMode.MULTIRUN:
        files.append(Path(settings["sweep"]["dir"]) / "multirun.yaml")
    for path in files:
        redact_file(path)


def redact_file(path: Path) -> None:
    """Takes secrets out of a YAML file of Hydra, if there is one with any."""
    if not path.is_file():
        return
    content = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    redacted: Any = (
        redact_words(content) if isinstance(content, list) else redact_setting("", content)
    )
    if redacted != content:
        write_text(path, OmegaConf.to_yaml(OmegaConf.create(redacted)))
