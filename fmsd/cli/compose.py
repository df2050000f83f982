"""Configurations: the files they lie in, resolvers, and what a run's own becomes with overrides beside it."""

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from fmsd.cache import cache_folder
from fmsd.cli.trust import destinations, load_run_config, trust_in
from fmsd.data import packaged
from fmsd.data.overrides import as_names
from fmsd.data.sources import deepfakebench_json
from fmsd.data.synthetic.plan import VERSION
from fmsd.errors import InputError
from fmsd.models.detector import PACKAGE as PACKAGED
from fmsd.quoting import typed
from fmsd.runs.configuration import first_difference
from fmsd.runs.folder import Run


def without(names: Sequence[str], name: str) -> list[str]:
    """All names but one.

    Raises:
        InputError: it is not among them.
    """
    if isinstance(names, str):
        raise InputError(
            f"{names} is one name where several are wanted",
            f"give them as a list, '[{names}, ...]'",
        )
    if name not in names:
        raise InputError(f"{name} is none of {', '.join(names)}", "choose one of these")
    return [other for other in names if other != name]


def rate(rates: Mapping[str, Mapping[str, float]], data: str, method: str) -> float:
    """The learning rate of a method on some data.

    Args:
        rates: by data, `others` for all that have no rates of their own, and method.

    Raises:
        InputError: there is none.
    """
    own = rates[data if data in rates else "others"]
    if method not in own:
        raise InputError(
            f"This experiment has no learning rate for method={method}",
            "give one with optimizer.lr=NUMBER",
        )
    return own[method]


OmegaConf.register_new_resolver(
    "inside", lambda folder, names: [f"{folder}/{name}" for name in names], replace=True
)
OmegaConf.register_new_resolver(
    "digest",
    lambda words: hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:8],
    replace=True,
)
OmegaConf.register_new_resolver("cache", lambda: str(cache_folder()), replace=True)
OmegaConf.register_new_resolver("rate", rate, replace=True)
OmegaConf.register_new_resolver("without", without, replace=True)


def absolute(data: DictConfig) -> None:
    """Makes the folders and files of the data absolute, so that the run's record holds wherever it is read."""
    for node, keys_ in ((data, ("root", "manifest")), (data.roots, tuple(data.roots))):
        for key in keys_:
            if node[key] is not None:
                node[key] = located(node[key])


def located(path: str) -> str:
    """A path that holds wherever it is read; a file inside this package keeps its name."""
    return path if path.startswith(PACKAGED) else str(Path(path).expanduser().absolute())


def add_others(data: DictConfig) -> None:
    """Gives each test dataset with a `conf/data/NAME.yaml` of its own that file's source, and its root where `data.roots.NAME` is not given."""
    for name in as_names(data.test, "data.test"):
        if name in (str(data.name), *as_names(data.train, "data.train")) or (
            name in data.others and data.roots.get(name)
        ):
            continue
        if name not in GlobalHydra.instance().config_loader().get_group_options("data"):
            continue  # the data's own source must know it
        other = OmegaConf.to_container(
            hydra.compose("train", overrides=[f"data={name}"]).data, resolve=True
        )
        if isinstance(other, dict):
            with open_dict(data):
                data.others[name] = other["source"]
                data.roots[name] = data.roots.get(name) or own_root(other)
    absolute(data)


def own_root(data: Mapping[Any, Any]) -> str | None:
    """The root that a data file brings; None where that is DeepfakeBench's folder, shared by many datasets, without a JSON file of this one."""
    root, file = data["root"], data["source"].get("file")
    if root is not None and root == os.environ.get("FMSD_DEEPFAKEBENCH") and file:
        return root if deepfakebench_json.has_json(Path(root).expanduser(), file) else None
    return root


def check_source(data: DictConfig, words: Sequence[str]) -> None:
    """Refuses words about the source where a manifest is read instead of it.

    Raises:
        InputError: there are such words.
    """
    idle = [word for word in words if word.lstrip("+~").startswith("data.source.")]
    root = None if data.root is None else Path(located(data.root))
    if idle and (
        data.manifest is not None
        or (root is not None and packaged.packaged_manifest(root) is not None)
    ):
        raise InputError(
            f"{', '.join(idle)} would have no effect: {data.manifest or root} brings a manifest, "
            "which is read as it was made",
            "leave it out, or choose among its forgeries with data.forgeries=[...], among its "
            "compressions with data.compression=NAME",
        )


def check_outside(out: str, data: DictConfig) -> None:
    """Refuses a folder of output inside the data's root, where it would be scanned as data the next time.

    Raises:
        InputError: it lies there.
    """
    if data.root is not None and Path(out).resolve().is_relative_to(Path(data.root).resolve()):
        raise InputError(
            f"out={out} lies inside data.root={data.root} and would be read as data the next time",
            "choose a folder beside it",
        )


def based(base: str | None) -> dict[str, Any]:
    """Where a run's base weights lie now, if not where the run found them."""
    return {} if base is None else {"pretrained": False, "weights": located(base)}


KEPT = ("checkpoints", "logs", "explanations", "predictions", "evaluations")
"""Folders of a run that verbs write into."""


def check_links(folder: Path) -> None:
    """Refuses a run whose folder has links that lead out of it: what is written there would replace files elsewhere.

    Raises:
        InputError: there is one.
    """
    home = folder.resolve()
    inside = (path for name in KEPT for path in (folder / name).rglob("*"))
    for path in itertools.chain(folder.iterdir() if folder.is_dir() else (), inside):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise InputError(
                f"{path} is a link that leads out of the run, to {path.resolve()}",
                "put what it leads to in its place",
            )


def check_record(run: Run) -> None:
    """Refuses a run whose `run.json` lacks what every verb about a trained run needs.

    Raises:
        InputError: it does, or there is none.
    """
    record = run.record()
    kinds = {"seed": int, "manifests": dict}
    if odd := [key for key, kind in kinds.items() if not isinstance(record.get(key), kind)]:
        raise InputError(
            f"{run.folder / 'run.json'} does not hold the {odd[0]} of a run",
            "put it back, or train the run anew",
        )


def trained(config: DictConfig, verb: str, fixed: tuple[str, ...]) -> tuple[Run, Any]:
    """A finished run, and its configuration with the overrides of the command line.

    Args:
        fixed: what the words on the command line must not begin with.

    Raises:
        InputError: there is no such run, something would change it, or it has no data.
    """
    run, words = Run(Path(config.run).expanduser().absolute()), HydraConfig.get().overrides.task
    check_record(run)
    check_links(run.folder)
    if wrong := [word for word in words if word.lstrip("+").startswith(fixed)]:
        raise InputError(
            f"{', '.join(wrong)} would change the run itself, which {verb} takes as it was trained",
            "leave it out (base=PATH says where its base weights lie)",
        )
    loaded = load_run_config(run.config, config.trust)
    redraw(loaded)
    whole = asked(loaded, config)
    if whole.data is None:
        raise InputError(
            f"The run in {run.folder} was merged from files and has no data of its own",
            "give data=NAME",
        )
    check_source(whole.data, words)
    return run, whole


def redraw(run: DictConfig) -> None:
    """Points the embedded dataset of a loaded run to the cache, unless it lies where the run has it: it is drawn nowhere else."""
    data = run.data
    if data is not None and data.source["_target_"] == "fmsd.data.sources.synthetic.scan":
        drawn = data.root is not None and (Path(data.root) / f"synthetic-v{VERSION}").is_dir()
        data.root = data.root if drawn else str(cache_folder())


def asked(run: Any, config: DictConfig) -> Any:
    """A run's configuration with the overrides of the command line: another base, other data, another trainer."""
    whole: Any = OmegaConf.merge(run, {"backbone": based(config.base)})
    for key in ("data", "trainer"):
        if config[key] is not None and "_target_" in config[key]:
            whole[key] = config[key]  # taken whole: another dataset has another source
        elif config[key] is not None and whole[key] is not None:
            whole[key] = OmegaConf.merge(
                whole[key], config[key]
            )  # what trainer=smoke says about data
    if whole.data is not None:
        add_others(whole.data)
    for word in ("choices", "overrides"):
        whole.pop(word, None)  # they are the run's
    return whole


def done(run: Run, config: str) -> bool:
    """Whether a job of a sweep was finished before.

    Raises:
        InputError: a run of another configuration was.
    """
    if not run.finished:
        return False
    if key := first_difference(run.config.read_text(encoding="utf-8"), config):
        raise InputError(
            f"{run.folder} holds a finished run that differs from this one in {key}",
            "begin a new sweep with hydra.sweep.dir=FOLDER",
        )
    return True


def resumed(folder: Path, overrides: Sequence[str], trust: object = ()) -> tuple[DictConfig, Path]:
    """The configuration and the folder of a run that was interrupted.

    Args:
        trust: what the configuration may name beside the packaged targets, see `fmsd.cli.trust`.

    Raises:
        InputError: there is no such run, it is finished, or something else is asked for, too.
    """
    run = Run(folder)
    if not run.config.is_file():
        raise InputError(
            f"{folder} is not the folder of a run (it has no config.yaml)",
            "give the folder that training began to write",
        )
    check_links(folder)
    config = load_run_config(run.config, trust)
    if "merger" in config:
        raise InputError(
            f"The run in {folder} was merged, not trained, so there is nothing to go on with",
            "merge anew into another folder",
        )
    if run.finished:
        raise InputError(
            f"The run in {folder} is finished",
            f"test it again with fmsd evaluate {typed('run', folder)}",
        )
    if others := [word for word in overrides if not word.startswith(("resume=", "trust="))]:
        raise InputError(
            f"{', '.join(others)} would change the run, which goes on as it was configured",
            "leave it out",
        )
    if "choices" not in config:
        raise InputError(
            f"The run in {folder} was begun by an older version, which kept too little to go on "
            "with",
            "train anew",
        )
    if elsewhere := destinations(config.get("logger"), trust):
        name, setting = next(iter(elsewhere.items()))
        remedy = f"if they shall go there, give {trust_in(config.logger[name])}"
        raise InputError(f"{run.config} says where results are sent ({setting})", remedy)
    return config, folder
