import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

from fmsd.atomic import atomic
from fmsd.errors import InputError
from fmsd.machine_errors import machine_error


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with atomic(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    with pytest.raises(KeyboardInterrupt), atomic(path) as partial:
        partial.write_text("ha")
        raise KeyboardInterrupt
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_others_may_read_what_a_careful_writer_made_private(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.txt") as partial:
        partial.write_text("x")
        partial.chmod(0o600)
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


NOISE = np.random.default_rng(0).integers(0, 256, 40_000, np.uint8)


def picture(path: Path) -> None:
    figure = Figure()
    figure.figimage(NOISE.reshape(200, 200))
    figure.savefig(path, format="png")


WRITERS: dict[str, Callable[[Path], object]] = {
    "Python": lambda path: path.write_bytes(NOISE.tobytes()),
    "torch": lambda path: torch.save({"a": torch.from_numpy(NOISE)}, path),
    "safetensors": lambda path: save_file({"a": torch.from_numpy(NOISE)}, path),
    "polars": lambda path: pl.DataFrame({"a": NOISE}).write_parquet(path),
    "matplotlib": picture,
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be longer than 8 KiB, which stands for a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_writes_it_a_file_without_room_is_named(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "a.file"
    path.write_text("as it was", encoding="utf-8")
    with pytest.raises(OSError, match="File too large") as caught, atomic(path) as partial:
        WRITERS[writer](partial)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    refusal = machine_error(caught.value)
    assert refusal is not None
    assert refusal.message == f"{path} cannot be written (File too large)"
    assert "ulimit -f" in refusal.remedy
    assert path.read_text(encoding="utf-8") == "as it was"
    assert [file.name for file in tmp_path.iterdir()] == ["a.file"]


@pytest.mark.parametrize("writer", WRITERS)
def test_where_there_is_room_it_is_written(writer: str, tmp_path: Path) -> None:
    with atomic(tmp_path / "a.file") as partial:
        WRITERS[writer](partial)
    assert (tmp_path / "a.file").stat().st_size > 8192


@pytest.mark.parametrize("error", [ValueError("a bug"), InputError("Ours", "do so"), OSError("x")])
def test_an_error_of_another_cause_stays_what_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, atomic(tmp_path / "a") as partial:
        partial.write_text("x", encoding="utf-8")
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path: Path) -> None:
    for name in ("a" * 250, "\N{GREEK SMALL LETTER ALPHA}" * 125):
        with atomic(tmp_path / name) as partial:
            partial.write_text("x", encoding="utf-8")
        assert (tmp_path / name).is_file()
    with (
        pytest.raises(OSError, match="too long") as caught,
        atomic(tmp_path / ("a" * 256)) as partial,
    ):
        partial.write_text("x", encoding="utf-8")
    refusal = machine_error(caught.value)
    assert refusal is not None
    assert refusal.remedy.startswith("shorten its name, or ")
