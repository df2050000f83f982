"""Errors of Hydra, and of loader processes, as one sentence with a remedy.

Hydra's messages are read where its errors have no fields: each kind is raised by Hydra itself here.
"""

import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.utils.data import DataLoader

from fmsd.cli.refusal import translate_hydra_error, without_worker_traceback
from fmsd.cli.training import replaced_batches
from fmsd.errors import BusyError, InputError
from fmsd.package_files import CONF
from tests.surroundings import python_path


def refusal(verb: str, *overrides: str) -> str:
    """The sentence for what Hydra raises."""
    with (
        pytest.raises((HydraException, OmegaConfBaseException)) as caught,
        hydra.initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        config = hydra.compose(verb, list(overrides), return_hydra_config=True)
        OmegaConf.to_container(config.hydra.launcher, resolve=True)
        _ = config.hydra.run.dir
    return str(translate_hydra_error(caught.value, verb, overrides))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["doctor"], "fmsd doctor needs data; give data=NAME: "),
        (["evaluate"], "fmsd evaluate needs run; give it as run=PATH."),
        (["train", "+nothing@at=all"], "There is no config key 'nothing'"),
        (["train", "dataset=ff++"], "There is no config key 'dataset' (did you mean data?)"),
        (
            ["train", "out=somewhere"],
            "fmsd train has no key 'out': it writes into runs/METHOD_DATA/TIME; choose another "
            "folder with hydra.run.dir=FOLDER.",
        ),
        (
            ["evaluate", "run=a", "out=somewhere"],
            "it writes into RUN/evaluations/TIME; choose another folder with hydra.run.dir=FOLDER.",
        ),
        (
            ["train", "folder=none"],
            "fmsd train has no key 'folder': it writes into runs/METHOD_DATA/TIME; choose another ",
        ),
        (["train", "loader=none"], "There is no config key 'loader'"),
        (["train", "+optimizer.lr=3"], "leave the + out: optimizer.lr=VALUE."),
        (["train", "~methd"], "There is no config key 'methd' (did you mean method?)"),
        (["train", "~optimizer.nothing"], "There is no config key 'optimizer.nothing'"),
        (["train", "data=nothing"], "There is no data=nothing; choose one of "),
        (["train", "hydra/launcher=nothing"], "There is no hydra/launcher=nothing; choose one of "),
        (["train", "seed=0,1"], "give each to a job of its own with -m seed=0,1."),
        (["train", "data.augment=a(b"], "data.augment=a(b holds characters that have a meaning"),
        (
            ["train", "hydra/launcher=slurm", "trainer=ddp", "trainer.devices=auto"],
            "give their number with trainer.devices=NUMBER.",
        ),
    ],
    ids=str,
)
def test_hydra_s_errors_have_a_remedy(command: list[str], sentence: str) -> None:
    assert sentence in refusal(*command)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["method=gend", "wrapper=roga"],
            "wrapper=roga replaces data.batches=pairs of method=gend by balanced; "
            "data.batches=balanced_pairs gives both.",
        ),
        (["method=gend", "wrapper=roga", "data.batches=balanced"], ""),
        (["method=gend", "wrapper=roga", "data.batches=balanced_pairs"], ""),
        (["method=gend"], ""),
        (["method=lora", "wrapper=roga"], ""),
    ],
    ids=str,
)
def test_a_wrapper_that_replaces_the_batches_of_a_method_says_so(
    words: list[str], said: str
) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", words)
    choices = {"method": "lora", "wrapper": "erm"}
    choices |= dict(word.split("=") for word in words if "." not in word)
    sentence = replaced_batches(choices, config.data.batches, words)
    assert sentence.startswith(said)
    assert bool(sentence) == bool(said)


class Unreadable:
    """A dataset whose images raise."""

    def __init__(self, error: InputError) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise self.error from InputError("The cause", "is not it")


NESTED = "The trainer does not take its settings (fmsd.errors.InputError: a bad thing; do x.)"


@pytest.mark.parametrize("kind", [InputError, BusyError])
@pytest.mark.parametrize("message", ["There is no image x", NESTED])
def test_an_error_of_a_loader_process_loses_that_process_s_traceback(
    message: str, kind: type[InputError]
) -> None:
    error = kind(message, "complete the copy")
    with pytest.raises(InputError) as caught:
        next(iter(DataLoader(Unreadable(error), num_workers=1)))  # pyright: ignore[reportArgumentType]
    assert "Traceback" in caught.value.message
    plain = without_worker_traceback(caught.value)
    assert type(plain) is kind
    assert str(plain) == str(error)


def test_an_error_with_a_remedy_stays_as_it_is() -> None:
    error = InputError(NESTED, "correct trainer.NAME=VALUE")
    assert without_worker_traceback(error) is error
    assert translate_hydra_error(error, "train", []) is error


def test_memory_that_ends_while_a_configuration_is_resolved_is_named() -> None:
    def allocate() -> None:
        raise MemoryError

    OmegaConf.register_new_resolver("allocate", allocate)
    try:
        with pytest.raises(Exception) as caught:  # noqa: PT011  it is what OmegaConf makes of it
            OmegaConf.to_container(OmegaConf.create({"a": "${allocate:}"}), resolve=True)
    finally:
        OmegaConf.clear_resolver("allocate")
    sentence = str(translate_hydra_error(caught.value, "train", []))
    assert sentence.startswith("The memory does not suffice (`ulimit -v` is ")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_that_ends_while_libraries_are_imported_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"ulimit -v 700000; exec {sys.executable} -m fmsd report runs=."],
        cwd=tmp_path,
        env={"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fmsd: The memory does not suffice (`ulimit -v` is 716800000);")
    assert done.stderr.count("\n") == 1
