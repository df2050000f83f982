"""Installed packages that add methods, datasets, wrappers and other choices to those of fmsd.

A package declares itself in its `pyproject.toml` by entry points:

    [project.entry-points."fmsd.plugins"]
    mine = "my_package"                            # has a folder conf/, laid out as fmsd's
    [project.entry-points."fmsd.layers"]
    my_kind = "my_package.layers:MyLayer"          # if a method of it brings a layer of its own

Finding them imports no code of theirs.
"""

import functools
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

from fmsd.errors import InputError, reason
from fmsd.package_files import CONF

PLUGINS, LAYERS = "fmsd.plugins", "fmsd.layers"
"""Groups of entry points."""


@dataclass(frozen=True)
class Plugin:
    """An installed package with configuration files.

    Args:
        name: of its entry point.
        package: the Python package that holds its code.
        distribution: the name of what pip installed.
        version: of the distribution.
        conf: the folder of its configuration files.
    """

    name: str
    package: str
    distribution: str
    version: str
    conf: Path

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    def owns(self, target: str) -> bool:
        """Whether a dotted name lies in its Python package."""
        return target.startswith(f"{self.package}.")


@functools.cache
def plugins() -> tuple[Plugin, ...]:
    """The installed plugins, by name.

    Raises:
        InputError: one has no configuration files, or a file that fmsd or another plugin has, too.
    """
    found = tuple(sorted(map(_plugin, _entry_points(PLUGINS)), key=lambda plugin: plugin.name))
    owners = dict.fromkeys(conf_files(CONF), "fmsd")
    for plugin in found:
        for path in conf_files(plugin.conf):
            if path in owners:
                raise InputError(
                    f"{plugin} brings the configuration file {path}, which {owners[path]} has, too",
                    f"rename {plugin.conf / path}, or uninstall one of them",
                )
            owners[path] = str(plugin)
    return found


def check_own_files(folder: Path) -> None:
    """Rejects a folder of `--config-dir` with a file that fmsd or a plugin has, too.

    Hydra would take theirs in its place, without a word.

    Raises:
        InputError: there is such a file.
    """
    owners = dict.fromkeys(conf_files(CONF), "fmsd") | {
        path: str(plugin) for plugin in plugins() for path in conf_files(plugin.conf)
    }
    if taken := [path for path in conf_files(folder) if path in owners]:
        raise InputError(
            f"{folder / taken[0]} has the name of a configuration file of {owners[taken[0]]}, "
            "which would be read in its place",
            "give it another name",
        )


def conf_folders() -> tuple[Path, ...]:
    """The folders of configuration files: that of fmsd, then those of the plugins."""
    return (CONF, *(plugin.conf for plugin in plugins()))


def plugin_of(file: Path) -> Plugin | None:
    """The plugin that a configuration file comes with; None for a file of fmsd."""
    return next((plugin for plugin in plugins() if file.is_relative_to(plugin.conf)), None)


def choice_files(group: str) -> dict[str, Path]:
    """A group's files by choice; one in a folder below has that as prefix: `recipes/effort`."""
    return {
        path.relative_to(folder / group).with_suffix("").as_posix(): path
        for folder in conf_folders()
        for path in sorted((folder / group).rglob("*.yaml"))
    }


def plugin_versions() -> dict[str, str]:
    """The version of each distribution that brings configuration files or layers, by its name."""
    points = (*_entry_points(PLUGINS), *_entry_points(LAYERS))
    return {point.dist.name: point.dist.version for point in points if point.dist is not None}


def plugin_layer(kind: str) -> type | None:
    """The class that an installed package declares for a kind of adapted layer, or None.

    Raises:
        InputError: several packages declare it, or the class cannot be imported.
    """
    points = [point for point in _entry_points(LAYERS) if point.name == kind]
    if not points:
        return None
    if len(points) > 1:
        raise InputError(
            f"Several packages declare the layer {kind!r}: "
            f"{', '.join(_distribution(point) for point in points)}",
            "uninstall all but one",
        )
    try:
        return points[0].load()
    except Exception as error:  # code of another package may raise anything
        raise InputError(
            f"The layer {kind!r} of {_distribution(points[0])} cannot be imported "
            f"({reason(error)})",
            "repair that package, or install it again",
        ) from error


def _entry_points(group: str) -> list[EntryPoint]:
    return list(importlib.metadata.entry_points(group=group))


def _distribution(point: EntryPoint) -> str:
    """The name and version of the distribution that an entry point comes from."""
    return "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _plugin(point: EntryPoint) -> Plugin:
    """The plugin that an entry point declares.

    Raises:
        InputError: its Python package is missing, or has no configuration files.
    """
    distribution, (top, *inner) = _distribution(point), point.value.split(".")
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
    homes = [] if spec is None else list(spec.submodule_search_locations or ())
    folders = [Path(home, *inner, "conf") for home in homes]
    conf = next((folder for folder in folders if folder.is_dir()), None)
    if conf is None:
        what = f"has no folder {folders[0]}" if folders else "is not installed"
        raise InputError(
            f"The plugin {point.name} of {distribution} names the package {point.value}, which "
            f"{what}",
            "install it again with its configuration files, or uninstall it",
        )
    if point.dist is None:
        raise InputError(
            f"The plugin {point.name} belongs to no installed distribution", "install it again"
        )
    return Plugin(point.name, point.value, point.dist.name, point.dist.version, conf)


def conf_files(folder: Path) -> list[str]:
    """The paths of the configuration files in a folder and its groups, relative to it.

    A group may be a link, as `conf/experiments` is in a checkout.
    """
    groups = (path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
    nested = (path for group in groups for path in group.rglob("*.yaml"))
    files = (*folder.glob("*.yaml"), *nested)
    return sorted(path.relative_to(folder).as_posix() for path in files)
