"""Signals at any moment: one sentence, the exit code of the signal, nothing half done, no orphans.

A few cases run by default; FMSD_TEST_SIGNALS=all runs every signal, target, verb and moment.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fmsd.cli.main import main
from fmsd.signals import SAME_SIGNAL, Interrupted
from tests.conftest import ROOT, grow_tree
from tests.surroundings import python_path
from tests.test_extract import tree as grow_videos
from tests.test_sweeps import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is read here"),
]

FMSD = (sys.executable, "-m", "fmsd")

TRAIN = ("train", *TINY[2:], "data.workers=2", "save_every=1")

ENDLESS = (*TRAIN, "trainer.max_epochs=100000", "hydra.run.dir=new")

COMMANDS = {
    "train.py": (sys.executable, str(ROOT / "train.py"), *ENDLESS[1:]),
    "train": (*FMSD, *ENDLESS),
    "sweep": (*FMSD, TRAIN[0], "-m", *TRAIN[1:], "trainer.max_epochs=100000", "seed=0,1"),
    "evaluate": (*FMSD, "evaluate", "run=run", "hydra.run.dir=new", "corrupt=all"),
    "extract": (*FMSD, "extract", "data=folder", "data.root=videos", "out=new", "workers=2"),
    "doctor": (*FMSD, "doctor", "data=folder", "data.root=data", "workers=2"),
    "report": (*FMSD, "report", "runs=run", "out=new", "resamples=20000"),
    "merge": (*FMSD, "merge", "merger=average", "experts=[run,other]", "out=new"),
}
"""The command of each case. They run where the fixture `place` has made their input."""


def handled(process: int, number: int) -> bool:
    """Whether a process has a handler of a signal."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        caught = next(line for line in lines if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
    return False


def first_import(process: int, place: Path) -> bool:
    """The handler is there, and nothing else."""
    return handled(process, signal.SIGTERM)


def loading(process: int, place: Path) -> bool:
    """torch is being imported."""
    with contextlib.suppress(OSError):
        return "libtorch" in Path(f"/proc/{process}/maps").read_text()
    return False


def begun(process: int, place: Path) -> bool:
    """Processes or threads are at work beside the first one, or its output has begun."""
    return any(place.glob("new/*")) or bool(children(process))


def saved(process: int, place: Path) -> bool:
    """There is a checkpoint."""
    return any(place.glob("**/checkpoints/last.ckpt"))


class Case(NamedTuple):
    """A signal to a command.

    Args:
        group: whether it goes to all processes of the command.
        moment: when it comes: as soon as this is true.
        later: seconds after that.
    """

    verb: str
    number: int
    group: bool
    moment: Callable[[int, Path], bool]
    later: float = 0

    def __str__(self) -> str:
        target = "group" if self.group else "main"
        name = signal.Signals(self.number).name
        return f"{self.verb}-{name}-{target}-{self.moment.__name__}-{self.later}"


INT, TERM, HUP, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1

FEW = [
    Case("train.py", INT, True, first_import),
    Case("train", USR1, False, loading, 0.5),
    Case("train", TERM, True, saved, 0.3),
    Case("train", HUP, False, saved),
    Case("sweep", TERM, True, saved, 0.2),
    Case("evaluate", INT, True, begun, 0.5),
    Case("extract", TERM, True, begun, 0.2),
    Case("doctor", USR1, True, begun),
]

MANY = [
    Case(verb, number, group, moment, later)
    for (verb, moment, later), (number, group) in zip(
        [
            *itertools.product(["train.py", "sweep"], [first_import, loading], [0, 0.7]),
            *[(verb, first_import, 0.1) for verb in ("train", "evaluate", "extract", "report")],
            *[(verb, loading, 0.3) for verb in ("evaluate", "merge")],
            *itertools.product(["train", "sweep"], [begun], [0, 0.5, 1.5]),
            *itertools.product(["train", "sweep"], [saved], [0, 0.1, 0.3]),
            *itertools.product(["evaluate", "extract", "doctor"], [begun], [0, 0.1]),
        ],
        itertools.cycle(itertools.product([INT, TERM, HUP, USR1], [False, True])),
        strict=False,
    )
]

ALL = os.environ.get("FMSD_TEST_SIGNALS") == "all"

CASES = [*FEW, *MANY] if ALL else FEW


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames, videos and two runs."""
    place = tmp_path_factory.mktemp("inputs")
    grow_tree(place / "data", domains=("real", "swap", "blend"), videos=6)
    grow_videos(place / "videos", videos=4, frames=40)
    for run in ("run", "other") if ALL else ("run",):
        with contextlib.chdir(place):
            assert main([*TRAIN, "method=full", f"hydra.run.dir={run}"]) == 0
    return place


@pytest.fixture
def place(inputs: Path, tmp_path: Path) -> Path:
    """A folder with the inputs, for one command."""
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def status(process: int) -> list[str]:
    """The state, parent, group, session, ... of a process; none if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []


def children(process: int) -> list[int]:
    """The living child processes."""
    with contextlib.suppress(OSError):
        return [
            int(child)
            for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    return []


def session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [
        process
        for process in found
        if (fields := status(process)) and fields[0] != "Z" and int(fields[3]) == leader
    ]


@contextlib.contextmanager
def unignored_signals() -> Iterator[None]:
    """Lets the processes that are started in a block have the default handlers of signals.

    A shell's background ignores SIGINT, and nohup SIGHUP.
    """
    before = {INT: signal.signal(INT, signal.default_int_handler)}
    before[HUP] = signal.signal(HUP, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running(command: tuple[str, ...], place: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command in a session of its own; what is left of it is killed at the end."""
    with unignored_signals():
        process = subprocess.Popen(
            command,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": python_path()},
        )
    try:
        yield process
    finally:
        for left in session(process.pid):
            with contextlib.suppress(OSError):
                os.kill(left, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return true


def check_quiet_end(process: "subprocess.Popen[str]", number: int, place: Path) -> str:
    """Checks how an interrupted command ended; returns its stderr."""
    out, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, (process.returncode, out, said)
    name = signal.Signals(number).name
    sentences = [line for line in said.splitlines() if line.startswith("fmsd: ")]
    assert len(sentences) == 1, said
    assert sentences[0].startswith(f"fmsd: interrupted by {name}; "), said
    for sign in ("Traceback", "DataLoader worker", "Exception ignored", "Error"):
        assert sign not in out + said, said
    assert wait_until(lambda: not session(process.pid), 7), "a process outlives the command"
    assert not list(place.rglob("*.partial"))
    return said


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_signal_ends_a_command_with_one_sentence(case: Case, place: Path) -> None:
    with running(COMMANDS[case.verb], place) as process:
        assert wait_until(
            lambda: case.moment(process.pid, place) or process.poll() is not None, 100
        )
        time.sleep(case.later)
        assert process.poll() is None, process.communicate()
        (os.killpg if case.group else os.kill)(process.pid, case.number)
        said = check_quiet_end(process, case.number, place)
    if case.verb in ("train", "train.py"):
        run = place / "new"
        resumable = any(run.glob("checkpoints/*.ckpt"))
        assert (f"go on with fmsd train resume={run}" in said) == resumable
        assert resumable or not run.exists()
    if case.verb == "sweep":
        assert len(list(place.glob("sweeps/*/*seed*"))) < 2
        if case.moment is not first_import:
            assert "run the same command again" in said
    if case.verb == "extract":
        assert not (place / "new" / ".work").exists()


BEGUN = """
import time
from fmsd import signals
signals.handle_signals()
signals.begin()
"""
"""How a script handles signals as a command does."""

SLOW_END = """
try:
    print("ready", flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    try:
        print("ending", flush=True)
        time.sleep(100)
    except KeyboardInterrupt as error:
        print(error, flush=True)
        signals.finish(error.code)
"""

DESTRUCTOR = """
class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(100)

try:
    Slow()
    time.sleep(100)
except KeyboardInterrupt as error:
    signals.finish(error.code)
"""

STEP = """
signals.LONGEST_WAIT = 0.5
signals.hold()
try:
    print("ready", flush=True)
    time.sleep(100)
except KeyboardInterrupt as error:
    signals.finish(error.code)
"""


HALF_MADE = """
class Half:
    def __init__(self):
        print("ready", flush=True)
        time.sleep(100)
        self.late = 1

    def __del__(self):
        self.late += 1

try:
    Half()
except KeyboardInterrupt as error:
    code = error.code
signals.finish(code)
"""
"""A signal in a constructor, whose object then fails in its destructor."""


@contextlib.contextmanager
def ready_script(text: str, place: Path) -> Iterator["subprocess.Popen[str]"]:
    """A running script that handles signals and is ready for one."""
    with running((sys.executable, "-c", BEGUN + text), place) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.mark.parametrize("number", [TERM, INT], ids=["TERM", "INT"])
def test_a_second_signal_ends_what_the_first_one_waits_for(number: int, tmp_path: Path) -> None:
    """The same at once, as `timeout` sends it to a process and to its group, changes nothing."""
    with ready_script(SLOW_END, tmp_path) as process:
        assert process.stdout is not None
        process.send_signal(number)
        process.send_signal(number)
        assert process.stdout.readline() == "ending\n"
        time.sleep(SAME_SIGNAL + 0.1)
        assert process.poll() is None
        process.send_signal(number)
        assert process.stdout.readline() == f"{Interrupted(number)}\n"
        assert process.wait(10) == 128 + number


@pytest.mark.parametrize(
    "text", [DESTRUCTOR, HALF_MADE, STEP], ids=["destructor", "constructor", "step"]
)
def test_a_signal_is_not_lost(text: str, tmp_path: Path) -> None:
    """In a destructor, which cannot raise, in a constructor, and in a step that does not end."""
    with ready_script(text, tmp_path) as process:
        process.send_signal(TERM)
        out, said = process.communicate(timeout=10)
    assert (process.returncode, out, said) == (128 + TERM, "", "")


LATE = """
import os, sys
from fmsd.cli import entry

class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), say=os.write):
        say(2, b"late")
        kill(process, {number})

late = Late()
sys.exit(entry.main(["--help"]))
"""
"""A signal that comes when the interpreter has removed all handlers."""


@pytest.mark.parametrize("number", [INT, TERM])
def test_a_signal_in_the_last_moment_leaves_the_exit_code(number: int, tmp_path: Path) -> None:
    text = LATE.format(number=int(number))
    with running((sys.executable, "-c", text), tmp_path) as process:
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "late")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    command = (
        *("nohup", sys.executable, "-c"),
        "import signal; from fmsd.signals import *; handle_signals(); "
        "print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM))",
    )
    said = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith(f"{signal.SIG_IGN} ")
    assert "_Handler" in said


@pytest.mark.parametrize("more", [(), ("trainer=ddp", "trainer.devices=2")], ids=["1", "2"])
def test_processes_of_a_training_end_with_it_when_it_is_killed(
    more: tuple[str, ...], place: Path
) -> None:
    with running((*COMMANDS["train"], *more), place) as process:
        assert wait_until(lambda: saved(process.pid, place), 200)
        assert len(session(process.pid)) > 2
        process.kill()
        process.wait()
        assert wait_until(lambda: not session(process.pid), 2)


def test_a_loader_process_that_the_system_kills_is_named(place: Path) -> None:
    with running(COMMANDS["train"], place) as process:
        assert wait_until(lambda: saved(process.pid, place), 100)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "Traceback" not in said
    assert "A process that loads images was killed by the system, mostly because memory" in said


@pytest.mark.parametrize("group", [False, True] if ALL else [False])
def test_a_training_in_several_processes_ends_as_one(group: bool, place: Path) -> None:
    command = (*COMMANDS["train"], "trainer=ddp", "trainer.devices=2")
    with running(command, place) as process:
        assert wait_until(lambda: saved(process.pid, place) or process.poll() is not None, 200)
        (os.killpg if group else os.kill)(process.pid, TERM)
        said = check_quiet_end(process, TERM, place)
    assert f"go on with fmsd train resume={place / 'new'}" in said


def test_two_processes_on_one_sweep_both_succeed(place: Path) -> None:
    command = (*FMSD, TRAIN[0], "-m", *TRAIN[1:], "seed=0,1", "hydra.sweep.dir=sweep")
    with running(command, place) as first, running(command, place) as second:
        for process in (first, second):
            out, said = process.communicate(timeout=300)
            assert process.returncode == 0, (out, said)
            assert "failed" not in out + said
    assert not list(place.rglob("error.txt"))
    assert len(list(place.glob("sweep/*/results.csv"))) == 2


def test_an_interrupted_command_has_its_document(place: Path) -> None:
    with running((*COMMANDS["train"], "--json"), place) as process:
        assert wait_until(lambda: saved(process.pid, place), 100)
        process.send_signal(HUP)
        out, _ = process.communicate(timeout=60)
    document = json.loads(out)
    assert (document["exit_code"], document["error"]) == (128 + HUP, "interrupted by SIGHUP")
    assert document["remedy"].startswith(f"go on with fmsd train resume={place / 'new'}")
