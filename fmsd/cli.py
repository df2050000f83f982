"""`fmsd VERB overrides...`; the only file that knows Hydra. `python train.py ...` is `fmsd train ...`."""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import inspect
import json
import logging
import math
import os
import re
import sys
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from fmsd.data import manifest as manifests
from fmsd.data.corruptions import chosen
from fmsd.data.extraction import Recipe
from fmsd.data.processes import cores
from fmsd.data.sources import deepfakebench
from fmsd.engine.processes import launch, launched, named
from fmsd.errors import BusyError, InputError
from fmsd.models.detector import PACKAGE as PACKAGED
from fmsd.report.run import BUSY, ERROR, EXPLANATIONS, Run, differing, prune, write
from fmsd.report.sweep import Note, attempt, begin, kindred, summed_up
from fmsd.tasks import dashboard as showing
from fmsd.tasks import doctor as examining
from fmsd.tasks import evaluate as evaluating
from fmsd.tasks import explain as explaining
from fmsd.tasks import extract as extracting
from fmsd.tasks import fold as folding
from fmsd.tasks import index as indexing
from fmsd.tasks import merge as merging
from fmsd.tasks import pack as packing
from fmsd.tasks import report as reporting
from fmsd.tasks import reproduce as reproducing
from fmsd.tasks import train as training
from fmsd.tasks.reproduce import quoted

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""The configuration: inside an installed package, beside it in a checkout."""

ALLOWED = ("fmsd.", "torch.optim.", "torch.nn.", "timm.", "lightning.pytorch.", "albumentations.", "torchmetrics.")
"""Prefixes of what a `_target_` may name: a config file must not be able to call anything else."""

USAGE = """fmsd VERB [overrides...]

  train      adapt a detector, choose its weights on validation data, test it on every test dataset
  train      resume=RUN    go on with a run that was interrupted
  evaluate   run=RUN [data=NAME ...]    test a run's weights, by default on its own test datasets
  evaluate   run=RUN corrupt=all [severities='[1,3,5]']    ... and how it stands up to corrupted images
  explain    run=RUN [data=NAME ...] [images=4]    heat maps over its test images, and how its features lie
  fold       run=RUN out=FILE.safetensors    a run's weights as a plain timm model
  merge      merger=NAME experts='[RUN_OR_FILE, ...]' out=RUN    specialists of one base as one run, without training
  merge      add=RUN to=MERGED out=RUN    a merge with one more specialist
  extract    data=NAME data.root=PATH out=FOLDER    videos or images as aligned face crops with a manifest
  index      data=NAME out=FILE.parquet    scan a dataset once and keep its manifest
  doctor     data=NAME [out=FILE.json]    what is wrong with a copy of a dataset, and which shortcuts it offers
  pack       data=NAME out=FOLDER [size=1G]    a dataset's images as a few large tars
  report     runs=FOLDER [by=domain] [out=FOLDER]    many runs as tables and one page, by test dataset or by forgery
  reproduce  NAME [seed=0,1,2] [overrides of its trainings...]    the commands behind a table of experiments/
  dashboard  entity=NAME [project=fmsd]    a view of all runs of a project on Weights & Biases

Overrides are Hydra's: group=choice, key=value, -m for a sweep over comma-separated values, --cfg job to see the result,
--config-dir=FOLDER for configuration files of your own. Example: fmsd train method=fmsd data=ff++ data.root=/data/ff++"""


SWEEP = "FMSD_SWEEP"
"""The environment variable that tells the jobs of a sweep, and the processes they start, the folder of notes on how they end."""

OmegaConf.register_new_resolver("inside", lambda folder, names: [f"{folder}/{name}" for name in names], replace=True)
OmegaConf.register_new_resolver("digest", lambda words: hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:8], replace=True)


def without(names: Sequence[str], name: str) -> list[str]:
    """All names but one.

    Raises:
        InputError: it is not among them.
    """
    if isinstance(names, str):
        raise InputError(f"{names} is one name where several are wanted", f"give them as a list, '[{names}, ...]'")
    if name not in names:
        raise InputError(f"{name} is none of {', '.join(names)}", "choose one of these")
    return [other for other in names if other != name]


OmegaConf.register_new_resolver("without", without, replace=True)


class JobError(Exception):
    """How a job of a sweep ended that was not refused, by its exit code: errors are what every launcher brings back from other processes."""


class Sweep(Callback):
    """What Hydra calls where a sweep begins."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Takes the folder of an earlier sweep with the same jobs, where a dated one would be made, and tells the jobs where to note how they end.

        Raises:
            SystemExit: that failed; of any other error Hydra makes a warning, and the sweep would run on without notes.
        """
        try:
            self.begin(config)
        except Exception as error:
            why = sentence(error) if isinstance(error, InputError) else f"{type(error).__name__}, {' '.join(str(error).split())}"
            print(f"fmsd: The sweep cannot begin: {why}", file=sys.stderr)
            raise SystemExit(2) from error

    def begin(self, config: DictConfig) -> None:
        """Does so."""
        asked, plain = values(config), OmegaConf.to_container(config.hydra.sweep, resolve=False)
        folder = Path(config.hydra.sweep.dir).absolute()
        if isinstance(plain, dict) and "${now:" in str(plain["dir"]) and (earlier := kindred(folder.parent, asked)):
            folder = earlier
            log.info("This sweep goes on in %s; hydra.sweep.dir=FOLDER makes a new one.", folder)
        notes = folder / ".jobs" / uuid.uuid4().hex
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            config.hydra.overrides.hydra += [f"hydra.sweep.dir={quoted(folder)}", f"+hydra.job.env_set.{SWEEP}={quoted(notes)}"]
        begin(folder, notes, asked, config.hydra.sweeper.get("n_trials") or math.prod(map(len, asked.values())))
        os.environ[SWEEP] = str(notes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code: 0 done, 1 done with failures that it told, 2 refused with one sentence, 130 interrupted.

    It is 75 where it was refused because another process is at work on the run.
    A sweep's is that of the first of its jobs that has another one than 0; the others run all the same.
    """
    verb, *overrides = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    overrides = [re.sub(r"^search=([^'\"]*=.*)$", r'search="\1"', word) for word in overrides]  # its commas are no sweep
    if verb in ("-h", "--help"):
        print(USAGE)
        return 0
    if verb == "reproduce":  # runs others, each with a configuration of its own
        return reproduce(overrides)
    if verb not in VERBS:
        print(f"fmsd: there is no verb {verb!r}; choose one of {', '.join(VERBS)}, reproduce.", file=sys.stderr)
        return 2
    speak()
    before, around = os.environ.get("HYDRA_FULL_ERROR"), os.environ.get(SWEEP)
    debugging = before == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what happened instead of printing and exiting itself
    refusals: list[InputError] = []
    codes: list[int] = []
    standing = existing(overrides)

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)
    def job(config: DictConfig) -> float | None:
        speak()  # a launcher may have put the job into another process
        settings = HydraConfig.get()
        folder, multirun = Path(settings.runtime.output_dir), settings.mode == RunMode.MULTIRUN
        leading = os.environ.get("SLURM_PROCID", "0") == "0"  # of the several processes of a job on a cluster
        notes = os.environ.get(SWEEP)
        try:
            if notes and multirun and leading and not debugging:
                note = Note(settings.job.num, list(settings.overrides.task), str(folder))
                return attempt(functools.partial(plainly, verb, overrides, config, folder), note, Path(notes))
            code = VERBS[verb](config, folder) or 0
            if code and multirun:
                raise JobError(code)
            codes.append(code)
        except (InputError, OmegaConfBaseException) as error:
            refusal = explained(error, verb, overrides)
            if notes and not isinstance(refusal, BusyError):
                write(folder / ERROR, f"{sentence(refusal)}\n")
            if debugging:
                raise
            if multirun:
                log.error("%s: %s", " ".join(settings.overrides.task), sentence(refusal))
                raise
            refusals.append(refusal)
        except Exception:
            if notes:
                write(folder / ERROR, traceback.format_exc())
            raise
        finally:
            if folder not in standing:
                prune(folder)  # Hydra makes it before we can look at anything

    sys.argv = [f"fmsd {verb}", *overrides]
    ended = 0
    try:
        job()
    except (InputError, HydraException, OmegaConfBaseException) as error:
        if debugging:
            raise
        refusals.append(explained(error, verb, overrides))
    except JobError as error:
        ended = error.args[0]
    except (FileExistsError, NotADirectoryError) as error:
        if debugging or error.filename is None:
            raise
        refusals.append(InputError(f"{error.filename} is a file, where a folder is wanted", "choose another with out=PATH or hydra.run.dir=PATH"))
    except KeyboardInterrupt:
        ended = 130
    except SystemExit as exit_:  # processes of its own have said why
        ended = exit_.code if isinstance(exit_.code, int) else 1
    except Exception as error:
        null = next((word for word in overrides if word.endswith("=null") and "Config group override" in str(error)), None)
        if debugging or (null is None and os.environ.get(SWEEP) == around):
            raise
        if null:
            refusals.append(InputError(f"{null} names no choice of its group", "leave it out, or name one"))
        else:
            why = f"{type(error).__name__}, {' '.join(str(error).split())}"
            refusals.append(InputError(f"The sweep broke off: {why}", "run the same command again: finished jobs are skipped"))
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before or "0"
        notes = os.environ.pop(SWEEP, None)
        if around is not None:
            os.environ[SWEEP] = around
    for refusal in refusals:
        print(f"fmsd: {sentence(refusal)}", file=sys.stderr)
    swept = summed_up(Path(notes)) if notes and notes != around else 0
    refused = BUSY if any(isinstance(refusal, BusyError) for refusal in refusals) else 2
    return ended or swept or (refused if refusals else max(codes, default=0))


def existing(overrides: Sequence[str]) -> set[Path]:
    """The folders of a run that are asked for and are there already: the user's own, which stay even if they are empty."""
    words = (word.partition("=") for word in overrides)
    folders = {Path(located(text.strip("'\""))) for key, _, text in words if key in ("hydra.run.dir", "out")}
    return {folder for folder in folders if folder.is_dir()}


def values(config: DictConfig) -> dict[str, list[str]]:
    """Every key that a sweep sets, with its values, or with what a sweeper draws them from."""
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides([*words, *config.hydra.overrides.task])
    return {one.get_key_element(): listed(one) for one in parsed}


def listed(override: Override) -> list[str]:
    """The values that an override gives its key in a sweep; of an interval its text."""
    if override.is_discrete_sweep():
        return sorted(override.sweep_string_iterator())
    return [(override.input_line or "").partition("=")[2] if override.is_sweep_override() else override.get_value_element_as_str()]


SIGNS = {
    "'hydra/launcher/submitit": ("SLURM needs the package hydra-submitit-launcher", "install it with: pip install 'fmsd[slurm]'"),
    "'hydra/launcher/joblib'": ("This launcher needs hydra-joblib-launcher", "install it with: pip install 'fmsd[joblib]'"),
    "'hydra/launcher/ray'": ("This launcher needs hydra-ray-launcher", "install it with: pip install 'fmsd[ray]'"),
    "'hydra/sweeper/optuna'": ("This sweeper needs hydra-optuna-sweeper", "install it with: pip install 'fmsd[optuna]'"),
    "hydra.launcher.tasks_per_node": ("hydra/launcher=slurm starts a task per device", "give their number with trainer.devices=NUMBER"),
}
"""Message and remedy for errors of launchers, by a part of their text."""


def sentence(error: InputError) -> str:
    """The error's sentence; a loader process wraps it into its traceback."""
    return str(error).rpartition("InputError: ")[2].strip()


def speak() -> None:
    """Sets up what is logged: our own words, and of others only warnings that concern the user."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("fmsd").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def plainly(verb: str, overrides: Sequence[str], config: DictConfig, folder: Path) -> int | None:
    """Does what a verb says.

    Raises:
        BusyError: another process is at work on it.
        InputError: it was refused, whoever refused it; its text is the sentence.
    """
    try:
        return VERBS[verb](config, folder)
    except BusyError:
        raise
    except (InputError, OmegaConfBaseException) as error:
        refusal = explained(error, verb, overrides)
        raise InputError(refusal.message, refusal.remedy) from error


def explained(error: Exception, verb: str, overrides: Sequence[str]) -> InputError:
    """Hydra's and OmegaConf's errors as one sentence with a remedy; our own are that already."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return cause
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


def check_targets(node: object) -> None:
    """Refuses a configuration that would call something defined outside the allowed packages, by whatever name.

    Raises:
        InputError: such a `_target_`, or one that does not exist.
    """
    if isinstance(node, dict) and "_target_" in node:
        target = node["_target_"]
        if not (isinstance(target, str) and target.startswith(ALLOWED)):
            raise InputError(f"The _target_ {target!r} is not allowed", f"targets must start with one of {', '.join(ALLOWED)}")
        try:
            home = f"{getattr(get_object(target), '__module__', '')}."
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"The _target_ {target!r} does not exist ({' '.join(str(error).split())})", "correct it") from error
        if not home.startswith(ALLOWED):
            raise InputError(
                f"The _target_ {target!r} is not allowed: it is defined in {home.rstrip('.')}", f"name something of {', '.join(ALLOWED)}"
            )
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_targets(child)


def build(node: Any) -> Any:
    """Instantiates a part of the configuration.

    Raises:
        InputError: a forbidden target, or arguments that do not fit the target.
    """
    check_targets(OmegaConf.to_container(node, resolve=True))
    try:
        made = instantiate(node, _convert_="all")
        check_arguments(made)
    except (InstantiationException, ValueError, TypeError) as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(
            f"The configuration of {node.get('_target_')} does not fit it ({' '.join(str(error).split()).rstrip('.')})", "correct these keys"
        ) from error
    return made


def check_arguments(made: object) -> None:
    """Raises TypeError or ValueError when a factory, or one among an object's attributes, was given arguments that its function does not take."""
    if isinstance(made, functools.partial):
        inspect.signature(made)
    for value in vars(made).values() if hasattr(made, "__dict__") and not isinstance(made, functools.partial) else ():
        for factory in value.values() if isinstance(value, dict) else (value,):
            if isinstance(factory, functools.partial):
                inspect.signature(factory)


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
    for name in data.test:
        if name in (data.name, *data.train) or (name in data.others and data.roots.get(name)):
            continue
        try:
            other = OmegaConf.to_container(hydra.compose("train", overrides=[f"data={name}"]).data, resolve=True)
        except HydraException:  # no file of this name: the data's own source must know it
            continue
        if isinstance(other, dict):
            with open_dict(data):
                data.others[name] = other["source"]
                data.roots[name] = data.roots.get(name) or own_root(other)
    absolute(data)


def own_root(data: Mapping[Any, Any]) -> str | None:
    """The root that a data file brings; None where that is DeepfakeBench's folder, shared by many datasets, without a JSON file of this one."""
    root, file = data["root"], data["source"].get("file")
    if root is not None and root == os.environ.get("FMSD_DEEPFAKEBENCH") and file:
        return root if deepfakebench.holds(Path(root).expanduser(), file) else None
    return root


def check_source(data: DictConfig, words: Sequence[str]) -> None:
    """Refuses words about the source where a manifest is read instead of it.

    Raises:
        InputError: there are such words.
    """
    idle = [word for word in words if word.lstrip("+~").startswith("data.source.")]
    root = None if data.root is None else Path(located(data.root))
    if idle and (data.manifest is not None or (root is not None and manifests.written(root) is not None)):
        raise InputError(
            f"{', '.join(idle)} would have no effect: {data.manifest or root} brings a manifest, which is read as it was made",
            "leave it out, or choose among its forgeries with data.forgeries=[...], among its compressions with data.compression=NAME",
        )


def based(base: str | None) -> dict[str, Any]:
    """Where a run's base weights lie now, if not where the run found them."""
    return {} if base is None else {"pretrained": False, "weights": located(base)}


def train(config: DictConfig, folder: Path) -> int:
    """fmsd train: writes a run, or goes on with one that was interrupted."""
    settings = HydraConfig.get()
    if config.resume is not None:
        config, folder = resumed(Path(config.resume).expanduser().absolute(), settings.overrides.task)
    else:
        add_others(config.data)
        check_source(config.data, settings.overrides.task)
        for node, key in ((config.backbone, "weights"), (config.method.get("mask") or {}, "file")):
            if node.get(key) is not None:
                node[key] = located(node[key])
        with open_dict(config):
            config.choices = {name: choice for name, choice in settings.runtime.choices.items() if "/" not in name and choice is not None}
            config.overrides = list(settings.overrides.task)
            del config.resume
        if type(config.seed) is not int or not 0 <= config.seed < 2**32:
            raise InputError(f"seed={config.seed} must be a whole number from 0 to {2**32 - 1}", "give e.g. seed=0")
        if settings.mode == RunMode.MULTIRUN and done(Run(folder), OmegaConf.to_yaml(config, resolve=True)):
            log.info("%s is finished: skipped.", folder)
            return 0
    apart = settings.mode == RunMode.MULTIRUN and "joblib" in settings.launcher["_target_"]  # a killed worker would end the others
    if ((count := processes(config.trainer)) > 1 or apart) and not launched(os.environ):
        own = [f"--config-dir={source.path}" for source in settings.runtime.config_sources if source.provider == "command-line"]
        place = ["hydra.mode=RUN", f"hydra.run.dir={quoted(folder)}"]
        return launch(["-m", "fmsd.cli", "train", *settings.overrides.task, *place, *own], count)
    training.train(
        name=config["choices"]["method"],
        detector=build(config.backbone),
        method=build(config.method),
        wrapper=build(config.wrapper),
        optimizer=build(config.optimizer),
        schedule=build(config.schedule),
        data=build(config.data),
        trainer=build(config.trainer),
        logger=loggers(config.logger),
        folder=folder,
        config=OmegaConf.to_yaml(config, resolve=True),
        command=sys.argv,
        overrides=list(config.overrides),
        choices=OmegaConf.to_container(config.choices),  # pyright: ignore[reportArgumentType]
        seed=config.seed,
        select=config.select,
        save_every=config.save_every,
        **config.learner,
    )
    return 0


def loggers(node: Any) -> dict[str, Any]:
    """The factories of loggers by name; in the configuration of an older version there is one without a name."""
    nodes = {"logger": node} if node and "_target_" in node else node or {}
    return {name: build(own) for name, own in nodes.items()}


def done(run: Run, config: str) -> bool:
    """Whether a job of a sweep was finished before.

    Raises:
        InputError: a run of another configuration was.
    """
    if not run.finished:
        return False
    if key := differing(run.config.read_text(), config):
        raise InputError(f"{run.folder} holds a finished run that differs from this one in {key}", "begin a new sweep with hydra.sweep.dir=FOLDER")
    return True


def resumed(folder: Path, overrides: Sequence[str]) -> tuple[DictConfig, Path]:
    """The configuration and the folder of a run that was interrupted.

    Raises:
        InputError: there is no such run, it is finished, or something else is asked for, too.
    """
    run = Run(folder)
    if not run.config.is_file():
        raise InputError(f"{folder} is not the folder of a run (it has no config.yaml)", "give the folder that training began to write")
    config = OmegaConf.load(run.config)
    assert isinstance(config, DictConfig)
    if "merger" in config:
        raise InputError(f"The run in {folder} was merged, not trained, so there is nothing to go on with", "merge anew into another folder")
    if run.finished:
        raise InputError(f"The run in {folder} is finished", f"test it again with fmsd evaluate run={folder}")
    if others := [word for word in overrides if not word.startswith("resume=")]:
        raise InputError(f"{', '.join(others)} would change the run, which goes on as it was configured", "leave it out")
    if "choices" not in config:
        raise InputError(f"The run in {folder} was begun by an older version, which kept too little to go on with", "train anew")
    return config, folder


def processes(trainer: DictConfig) -> int:
    """How many processes of this machine a trainer asks for.

    Raises:
        InputError: it asks for several machines, and nothing has started a process for each of their devices.
    """
    strategy, devices = trainer.get("strategy"), trainer.get("devices", 1)
    if not isinstance(strategy, DictConfig):
        return 1
    if trainer.get("num_nodes", 1) > 1 and not launched(os.environ):
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes} needs something that starts a process per device on every machine",
            "start it with -m hydra/launcher=slurm, srun or torchrun",
        )
    if devices in ("auto", -1, "-1"):
        return max(1, torch.accelerator.device_count())
    return len(named(devices)) or int(devices)


def evaluate(config: DictConfig, folder: Path) -> None:
    """fmsd evaluate: tests a run's weights, by default on the data and the trainer of its training."""
    run, whole = trained(config, "evaluate", ("backbone", "seed"))
    wanted: Any = OmegaConf.to_container(config)
    corruptions = chosen(wanted["corrupt"], wanted["severities"])
    whole.run = str(run.folder)
    if corruptions:
        whole.corrupt, whole.severities = wanted["corrupt"], wanted["severities"]
    evaluating.evaluate(
        run=run,
        detector=build(whole.backbone),
        data=build(whole.data),
        trainer=build(whole.trainer),
        folder=folder,
        config=OmegaConf.to_yaml(whole, resolve=True),
        command=sys.argv,
        corruptions=corruptions,
        logger=loggers(whole.get("logger")),
    )


def explain(config: DictConfig, folder: Path) -> None:
    """fmsd explain: draws where a run's detector looks, by default on the data of its training."""
    run, whole = trained(config, "explain", ("backbone",))
    data, out = build(whole.data), run.folder / EXPLANATIONS
    if config.out is not None:
        out = Path(located(config.out))
    elif config.data is not None:
        out /= "_".join(data.tests)
    explaining.explain(
        run=run,
        detector=build(whole.backbone),
        data=data,
        trainer=build(whole.trainer),
        out=out,
        **{name: config[name] for name in ("images", "frames", "how", "layer", "seed", "domains")},
    )


def trained(config: DictConfig, verb: str, fixed: tuple[str, ...]) -> tuple[Run, Any]:
    """A finished run, and its configuration with what is asked for beside it.

    Args:
        fixed: what the words on the command line must not begin with.

    Raises:
        InputError: there is no such run, something would change it, or it has no data.
    """
    run, words = Run(Path(config.run).expanduser().absolute()), HydraConfig.get().overrides.task
    run.record()
    if wrong := [word for word in words if word.lstrip("+").startswith(fixed)]:
        raise InputError(
            f"{', '.join(wrong)} would change the run itself, which {verb} takes as it was trained",
            "leave it out (base=PATH says where its base weights lie)",
        )
    whole = asked(OmegaConf.load(run.config), config)
    if whole.data is None:
        raise InputError(f"The run in {run.folder} was merged from files and has no data of its own", "give data=NAME")
    check_source(whole.data, words)
    return run, whole


def asked(run: Any, config: DictConfig) -> Any:
    """A run's configuration with what is asked for beside it: another base, other data, another trainer."""
    whole: Any = OmegaConf.merge(run, {"backbone": based(config.base)})
    for key in ("data", "trainer"):
        if config[key] is not None and "_target_" in config[key]:
            whole[key] = config[key]  # taken whole: another dataset has another source
        elif config[key] is not None and whole[key] is not None:
            whole[key] = OmegaConf.merge(whole[key], config[key])  # what trainer=smoke says about data
    if whole.data is not None:
        add_others(whole.data)
    for word in ("choices", "overrides"):
        whole.pop(word, None)  # they are the run's
    return whole


def fold(config: DictConfig, folder: Path) -> None:
    """fmsd fold: writes a run's dense weights."""
    run = Run(Path(config.run).expanduser().absolute())
    run.record()
    folding.fold(run, build(OmegaConf.merge(OmegaConf.load(run.config), {"backbone": based(config.base)}).backbone), Path(config.out).expanduser())


def merge(config: DictConfig, folder: Path) -> None:
    """fmsd merge: writes a run that was merged, not trained; by default it is tested on the data of the first run among its experts."""
    settings, before = HydraConfig.get(), None
    if settings.mode == RunMode.MULTIRUN and any(word.startswith("out=") for word in settings.overrides.task):
        raise InputError("The merges of a sweep cannot all lie in out=PATH", "give hydra.sweep.dir=FOLDER")
    words, choices = list(settings.overrides.task), {"merger": settings.runtime.choices["merger"]}
    if config.add is not None or config.to is not None:
        run, before = earlier(config, words)
        choices = run.choices
    else:
        given = [config.experts] if isinstance(config.experts, str) else config.experts or []
        experts = [os.path.normpath(located(path)) for path in given]  # links stay: those of caches have names that tell their format
        merging.check_count([Path(path) for path in experts])
        folders = [Run(Path(path)) for path in experts if Path(path).is_dir()]
        plain = hydra.compose("merge", [word for word in words if word.startswith("data=")]).backbone  # data may bring a backbone of its own
        chosen = config.backbone != plain or any(word.lstrip("+").startswith("backbone") for word in words)
        if not folders and config.backbone is None:
            raise InputError(
                "The experts are files, which do not tell their network", "give backbone=NAME, and base=PATH for the weights they began with"
            )
        run: Any = {"data": None, "trainer": hydra.compose("train").trainer, "seed": 0}
        for one in reversed(folders):  # the first one counts, but for data that it has not
            seed = one.record()["seed"]  # says what is wrong with a folder that is no run
            own: Any = OmegaConf.load(one.config)
            run = {"backbone": own.backbone, "data": own.data or run["data"], "trainer": own.trainer, "seed": seed}
        run = OmegaConf.create(run)
        if run.data is not None:
            run.data.train_forgeries, run.data.left_out = None, None  # what an expert was trained on says nothing about the merge
        run.merger, run.experts = config.merger, experts
        if chosen or not folders:
            run.backbone = config.backbone
        if config.seed is not None:
            run.seed = config.seed
    whole = asked(run, config)
    if whole.data is not None:
        whole.data.train = whole.data.train if config.on is None else [config.on] if isinstance(config.on, str) else config.on
    grid = None if config.search is None else searched(config.search)
    if (grid is None) != (config.on is None):
        raise InputError(
            "A search needs both, its values and the data whose validation split chooses",
            "give search='NAME=VALUES ...' and on=DATASET (or on=[A,B])",
        )
    whole.search, whole.test, whole.choices, whole.overrides = config.search, config.test, choices, words
    if settings.mode == RunMode.MULTIRUN and done(Run(folder), OmegaConf.to_yaml(whole, resolve=True)):
        merging.check_unchanged(folder)
        log.info("%s is finished: skipped.", folder)
        return
    merging.merge(
        detector=build(whole.backbone),
        merger=build(whole.merger),
        experts=[Path(path) for path in whole.experts],
        data=None if whole.data is None else build(whole.data if config.test else OmegaConf.merge(whole, {"data": {"test": []}}).data),
        trainer=build(whole.trainer),
        folder=folder,
        config=OmegaConf.to_yaml(whole, resolve=True),
        command=sys.argv,
        overrides=words,
        choices=choices,
        seed=whole.seed,
        grid=grid,
        before=before,
    )


def earlier(config: DictConfig, words: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The configuration of a merge with one more expert, and the record of the merge without it.

    Raises:
        InputError: half of what is needed, no merged run, or something that would change the recipe.
    """
    if config.add is None or config.to is None:
        raise InputError("Adding a specialist needs the specialist and the merge", "give add=RUN_OR_FILE and to=MERGED")
    fixed = ("merger", "experts", "experiments", "backbone", "search", "on=", "seed")
    if other := [word for word in words if word.lstrip("+~").startswith(fixed)]:
        raise InputError(f"{', '.join(other)} would change the recipe of {config.to}", "leave it out, or merge anew with experts='[...]'")
    path = Path(located(config.to))
    if not (path / merging.RECORD).is_file():
        raise InputError(f"{path} is not a merged run (it has no {merging.RECORD})", "give the folder that fmsd merge printed at its end")
    run = OmegaConf.load(Run(path).config)
    assert isinstance(run, DictConfig)
    record = json.loads((path / merging.RECORD).read_text())
    run.experts = [*run.experts, os.path.normpath(located(config.add))]
    run.merger = {"_target_": run.merger["_target_"]} | {
        name: value for name, value in record["merger"].items() if name != "name"
    }  # as a search chose
    return run, record


def searched(text: str) -> dict[str, list[Any]]:
    """The values to try of each coefficient, from `alpha=0.4,0.6 ratio=0.1,0.2`.

    Raises:
        InputError: it is written otherwise.
    """
    grid: dict[str, list[Any]] = {}
    for word in str(text).split():
        name, sign, values = word.partition("=")
        if not (name and sign and all(values.split(","))) or name in grid:
            raise InputError(f"search={text!r} is not of the form 'alpha=0.4,0.6 ratio=0.1,0.2', each name once", "correct it")
        grid[name] = [scalar(value) for value in values.split(",")]
    return grid


def scalar(text: str) -> Any:
    """A value as Hydra reads it on the command line."""
    return OverridesParser.create().parse_override(f"x={text}").value()


def index(config: DictConfig, folder: Path) -> None:
    """fmsd index: writes a manifest."""
    absolute(config.data)
    indexing.index(build(config.data), Path(config.out).expanduser())


def extract(config: DictConfig, folder: Path) -> int:
    """fmsd extract: writes face crops and their manifest."""
    if idle := [word for word in HydraConfig.get().overrides.task if word.lstrip("+~").startswith(("data.frames", "data.manifest", "data.sampling"))]:
        raise InputError(f"{', '.join(idle)} would have no effect: extract reads the videos themselves", "give frames=, sampling= and data.videos=")
    absolute(config.data)
    failures = extracting.extract(
        data=build(config.data),
        finder=build(config.detector),
        recipe=Recipe(**{field.name: config[field.name] for field in dataclasses.fields(Recipe)}),
        out=Path(located(config.out)),
        shard=part(config.shard, config.shards),
        workers=cores() if config.workers is None else config.workers,
    )
    return 1 if failures else 0


def part(shard: str | int | None, shards: int | None) -> tuple[int, int]:
    """(number, of how many) from shard=i/n, or from shard=i shards=n.

    Raises:
        InputError: it is written otherwise.
    """
    if shard is None and shards is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", f"{shard}" if shards is None else f"{shard}/{shards}")
    if match is None:
        raise InputError(f"shard={shard} shards={shards} is no part of the videos", "give shard=0/8, or shard=0 shards=8")
    return int(match[1]), int(match[2])


def pack(config: DictConfig, folder: Path) -> None:
    """fmsd pack: writes images into tars."""
    absolute(config.data)
    check_source(config.data, HydraConfig.get().overrides.task)
    packing.pack(build(config.data), Path(located(config.out)), config.size)


def doctor(config: DictConfig, folder: Path) -> int:
    """fmsd doctor: says what is wrong with a copy of a dataset."""
    absolute(config.data)
    check_source(config.data, HydraConfig.get().overrides.task)
    return 0 if examining.doctor(build(config.data), Path(config.out).expanduser(), config.frames, config.limit, config.workers) else 1


def report(config: DictConfig, folder: Path) -> None:
    """fmsd report: many runs as tables and one page."""
    out = None if config.out is None else Path(config.out).expanduser()
    differ = [config.differ] if isinstance(config.differ, str) else list(config.differ)
    reporting.report(Path(config.runs).expanduser(), config.metric, out, config.by, config.against, differ, config.resamples)


def reproduce(words: Sequence[str]) -> int:
    """fmsd reproduce: runs other verbs, one after the other, each with a configuration of its own."""
    speak()
    settings = yaml.safe_load((CONF / "reproduce.yaml").read_text())
    steps, values = settings.pop("steps"), {name: str(value) for name, value in settings.items()}
    names = [word for word in words if re.fullmatch(r"\w+", word)]
    own = {key: value for key, _, value in (word.partition("=") for word in words) if key in values}
    rest = [word for word in words if word not in names and word.partition("=")[0] not in values]
    try:
        if len(names) != 1 or names[0] not in steps:
            raise InputError("A table to reproduce is missing", f"give the name of one: {', '.join(steps)}")
        if idle := [key for key in own if f"{{{key}}}" not in " ".join(steps[names[0]])]:
            raise InputError(f"{idle[0]}={own[idle[0]]} would have no effect: no command of the table {names[0]} has it", "leave it out")
        values |= own
        values["out"] = str(Path(values["out"].replace("{name}", names[0])).expanduser())
        return reproducing.reproduce(names[0], steps[names[0]], values, rest, main, CONF / "experiments" / f"{names[0]}.csv")
    except InputError as error:
        print(f"fmsd: {sentence(error)}", file=sys.stderr)
        return 2


def dashboard(config: DictConfig, folder: Path) -> None:
    """fmsd dashboard: saves a view of a project on Weights & Biases."""
    showing.dashboard(config.entity, config.project, config.name)


VERBS: dict[str, Callable[[DictConfig, Path], int | None]] = {
    "train": train,
    "evaluate": evaluate,
    "explain": explain,
    "fold": fold,
    "merge": merge,
    "extract": extract,
    "index": index,
    "doctor": doctor,
    "pack": pack,
    "report": report,
    "dashboard": dashboard,
}


if __name__ == "__main__":
    sys.exit(importlib.import_module("fmsd.cli").main())  # other processes know what is in it by that name
