"""What a machine refuses is said in one sentence that names it."""

import ast
import errno
import io
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import pytest

import fmsd
from fmsd import check_python
from fmsd.cache import cache_folder
from fmsd.cli.streams import tolerant_streams
from fmsd.errors import InputError
from fmsd.machine_errors import machine_error
from tests.conftest import ROOT
from tests.surroundings import python_path


def said(act: Callable[[], object]) -> str:
    """The sentence for what an action raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  it is what the system raises
        act()
    refusal = machine_error(caught.value)
    assert refusal is not None
    sentence = str(refusal)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def raise_(error: BaseException) -> None:
    raise error


def hand_over(connection: "Connection[Any]") -> None:
    """Offers an open file to the process at the other end, and stays."""
    connection.send(DupFd(0))
    time.sleep(100)


def test_a_loader_process_that_is_gone_before_its_images_are_fetched_is_named() -> None:
    """torch hands images over as open files, for which their process is asked."""
    context = multiprocessing.get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=hand_over, args=(other,))
    process.start()
    offered = own.recv()
    process.kill()
    process.join()
    assert "A process that loads images was killed by the system" in said(offered.detach)


# ---- files


def test_a_folder_that_is_read_only_is_named_with_the_ways_round_it(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    for number in (errno.EROFS, errno.EACCES):
        sentence = said(
            lambda number=number: raise_(OSError(number, os.strerror(number), str(path)))
        )
        assert str(path) in sentence
        assert os.strerror(number) in sentence
        assert "hydra.run.dir=PATH" in sentence
        assert "out=PATH" in sentence


def test_a_relative_path_is_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "runs") in said(
        lambda: raise_(OSError(errno.EROFS, "Read-only file system", "runs"))
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc to fail to write to")
def test_a_cache_that_cannot_be_written_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FMSD_CACHE", "/proc/cache")
    error = OSError(errno.EROFS, "Read-only file system", str(cache_folder() / "x"))
    assert "set FMSD_CACHE to a folder that can be written" in said(lambda: raise_(error))


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    if Path("/dev/full").exists():
        error: OSError | None = None
        try:
            Path("/dev/full").write_text("x", encoding="utf-8")
        except OSError as full:
            error = OSError(full.errno, full.strerror, str(tmp_path / "a.csv"))
        assert error is not None
        assert (
            f"{tmp_path / 'a.csv'} cannot be written (No space left on device); make room"
            in said(lambda: raise_(error))
        )


def test_too_many_open_files_name_the_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
    files: list[io.BufferedReader] = []
    try:
        sentence = said(lambda: [files.append(open(os.devnull, "rb")) for _ in range(100)])  # noqa: PTH123, SIM115
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in files:
            file.close()
    assert "may not open more files (`ulimit -n` is" in sentence


# ---- processes and their memory


def test_shared_memory_is_named_with_the_setting_that_does_without() -> None:
    unable = "unable to write to file </torch_123_456_0>: No space left on device (28)"
    mapped = "unable to mmap 1232 bytes from file </torch_3_4_1>: Cannot allocate memory (12)"
    allocated = (
        "unable to allocate shared memory(shm) for file </torch_9_1_0>: No space left on device"
    )
    bus = (
        "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory."
    )
    for error in (
        RuntimeError(unable),
        RuntimeError(mapped),
        RuntimeError(allocated),
        RuntimeError(bus),
        OSError(errno.ENOSPC, "No space left on device", "/dev/shm/sem.x"),
    ):
        sentence = said(lambda error=error: raise_(error))
        assert "shared memory /dev/shm" in sentence
        assert "data.workers=0" in sentence


CAGE = """
import multiprocessing, sys
from fmsd.machine_errors import machine_error
try:
    multiprocessing.get_context("fork").Queue()
except OSError as error:
    try:
        raise RuntimeError("Please call iter first.")
    except RuntimeError as late:
        print(machine_error(late))
"""


def caged() -> bool:
    """Whether this user may mount in a place of its own."""
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "ro,size=64k", "none", "/dev/shm"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
def test_semaphores_that_cannot_be_made_are_known_for_shared_memory() -> None:
    if not caged():
        pytest.skip("this user may not mount a /dev/shm of its own")
    line = 'mount -t tmpfs -o ro,size=64k none /dev/shm && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", line, sys.executable, CAGE],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(
        "The shared memory /dev/shm, through which processes exchange data, is too small or "
        "cannot be written; "
    )


def test_processes_that_may_not_be_started_are_named() -> None:
    assert "No further process can be started (`ulimit -u` is" in said(
        lambda: raise_(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"))
    )
    assert "No further thread" in said(lambda: raise_(RuntimeError("can't start new thread")))
    assert "because memory ran out" in said(
        lambda: raise_(RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. "))
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
    ids=repr,
)
def test_memory_that_does_not_suffice_is_told(error: Exception) -> None:
    sentence = said(lambda: raise_(error))
    assert sentence.startswith("The memory does not suffice")
    assert "data.batch_size" in sentence


def test_a_missing_folder_for_temporary_files_is_told() -> None:
    lines = (
        "import os, tempfile\nos.open = lambda *a, **k: (_ for _ in ()).throw(OSError(30, 'x'))\n"
        "from fmsd.machine_errors import machine_error\n"
        "try:\n    tempfile.gettempdir()\nexcept OSError as error:\n    print(machine_error(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", lines],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == (
        "There is no folder for temporary files that can be written; set TMPDIR to one, or make "
        "room in /tmp.\n"
    )


def test_a_full_disk_without_a_name_is_searched_among_the_outputs(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    refusal = machine_error(error, [tmp_path / "run"])
    assert refusal is not None
    assert str(tmp_path / "run") in refusal.remedy  # no disk is full: all are named
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_the_machines_fault_is_left_alone() -> None:
    def wrapped() -> None:
        try:
            raise OSError(errno.EROFS, "Read-only file system", "/x")
        except OSError as error:
            raise InputError("Ours", "do so") from error

    others = [
        ZeroDivisionError("x"),
        RuntimeError("unable to broadcast"),
        OSError("text only"),
        OSError(errno.EIO, "Input/output error"),
        FileNotFoundError(errno.ENOENT, "No such file", "/x"),
    ]
    for act in (wrapped, *(lambda error=error: raise_(error) for error in others)):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            act()
        assert machine_error(caught.value) is None


# ---- the terminal


def test_a_terminal_of_few_letters_shows_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    with pytest.raises(UnicodeEncodeError):
        sys.stdout.write("\u2022")
        sys.stdout.flush()
    with tolerant_streams():
        for stream in (sys.stdout, sys.stderr):
            stream.write("\u2022 caf\u00e9 " + os.fsdecode(b"\xff.jpg"))
            stream.flush()
            expected = "? caf\u00e9 \\xff.jpg".encode("latin-1")
            assert stream.buffer.getvalue() == expected  # pyright: ignore[reportAttributeAccessIssue]


def test_a_stream_that_cannot_be_changed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stdout", stream)
        with tolerant_streams():
            assert sys.stdout is stream


# ---- the Python


def test_an_old_python_is_told_which_it_should_be() -> None:
    check_python((3, 11, 0))
    check_python((4, 0))
    for old in ((3, 10, 13), (3, 8, 18), (2, 7, 18)):
        with pytest.raises(
            ImportError, match=rf"needs Python 3\.11 or later; this is Python {old[0]}\.{old[1]}\.$"
        ):
            check_python(old)


@pytest.mark.parametrize(
    "path", [Path(fmsd.__file__), ROOT / "train.py"], ids=lambda path: path.name
)
def test_an_old_python_understands_the_files_that_tell_it(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    told = next(
        number
        for number, node in enumerate(tree.body)
        if isinstance(node, ast.If | ast.Expr) and number
    )
    assert imports
    assert all(tree.body.index(node) > told for node in imports)


# ---- the cache


def test_the_cache_lies_where_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FMSD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "fmsd"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which its specification has ignored
    assert cache_folder() == tmp_path / ".cache" / "fmsd"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fmsd"
    monkeypatch.setenv("FMSD_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("FMSD_CACHE", "")
    assert cache_folder() == tmp_path / "xdg" / "fmsd"


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FMSD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345678)  # whom the system does not know
    with pytest.raises(
        InputError, match=r"There is no home folder for the cache ~/\.cache/fmsd; set FMSD_CACHE"
    ):
        cache_folder()
