"""Functions that configuration files call as `${NAME:...}`, registered when this is imported.

At import, since a launcher's process composes the configuration of a job right after it unpickled
the job's function: the imports of that are all that runs there before.
"""

import hashlib
from collections.abc import Mapping, Sequence

from omegaconf import ListConfig, OmegaConf

from fmsd.cache import cache_folder
from fmsd.cli.hydra_compat import task_overrides
from fmsd.cli.roots import existing_root
from fmsd.errors import InputError
from fmsd.hub_addresses import outputs_of
from fmsd.redaction import identifying_words


def inside(folder: str, names: Sequence[str]) -> list[str]:
    """The paths of some names below a folder."""
    return [f"{folder}/{name}" for name in names]


def digest(overrides: Sequence[str]) -> str:
    """A hash of eight characters that identifies a set of overrides.

    It stays the same where only a password or token changes, of a logger for instance.
    """
    typed = task_overrides(overrides) if isinstance(overrides, ListConfig) else overrides
    return hashlib.sha256("\n".join(sorted(identifying_words(typed))).encode()).hexdigest()[:8]


def outputs(run: str) -> str:
    """The folder below which a verb writes what it makes of a run: the run, or one for the Hub's.

    Raises:
        InputError: it is no address on the Hub, though it begins as one.
    """
    return outputs_of(run)


def cache() -> str:
    """The folder of files that can be made or fetched again."""
    return str(cache_folder())


def root(name: str, shared: str | None = None) -> str | None:
    """The root of a dataset by an environment variable or the file of roots; None without one."""
    return existing_root(name, shared)


def rate(rates: Mapping[str, Mapping[str, float]], data: str, method: str) -> float:
    """The learning rate of a method on some data.

    Args:
        rates: by data, with `others` for all that have no rates of their own, then by method.

    Raises:
        InputError: the method has no rate on this data.
    """
    by_method = rates[data if data in rates else "others"]
    if method not in by_method:
        raise InputError(
            f"This experiment has no learning rate for method={method}",
            "give one with optimizer.lr=NUMBER",
        )
    return by_method[method]


def without(names: Sequence[str], name: str) -> list[str]:
    """All names but one.

    Raises:
        InputError: the name is not among them.
    """
    if isinstance(names, str):
        raise InputError(
            f"{names} is one name where several are wanted",
            f"give them as a list, '[{names}, ...]'",
        )
    if name not in names:
        raise InputError(f"{name} is none of {', '.join(names)}", "choose one of these")
    return [other for other in names if other != name]


for _resolver in (inside, digest, outputs, cache, root, rate, without):
    OmegaConf.register_new_resolver(_resolver.__name__, _resolver, replace=True)
