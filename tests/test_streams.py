"""The standard outputs: readers that go away, full disks, and characters they lack."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fmsd.cli.main import main
from tests.runs import finished
from tests.surroundings import python_path


def shell(line: str, place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of the shell in which `fmsd` is the command; its exit code is the command's."""
    script = f'fmsd() {{ "{sys.executable}" -m fmsd "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PYTHONPATH": python_path(), **variables},
        cwd=place,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    finished(tmp_path / "runs" / "one", ["data=ff"], 0)
    return tmp_path


REPORT = "report runs=runs out=report resamples=2"


@pytest.mark.parametrize(
    ("line", "unbuffered"), [("--help", "1"), ("roots --json", ""), (REPORT, "")]
)
def test_a_command_whose_reader_has_gone_does_its_work_and_ends_with_141(
    line: str, unbuffered: str, place: Path
) -> None:
    done = shell(f"fmsd {line} | true", place, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 141, done.stderr
    assert done.stderr == ""
    assert (place / "report" / "report.html").is_file() == (line == REPORT)


def test_neither_output_has_a_reader(place: Path) -> None:
    assert shell("fmsd trian 2>&1 | true", place).returncode == 2  # the refusal counts
    done = shell(f"fmsd {REPORT} 2>&1 | true", place)
    assert done.returncode == 141
    assert (place / "report" / "report.html").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_files_are_written_though_the_output_goes_to_a_full_disk(place: Path) -> None:
    done = shell(f"fmsd {REPORT} > /dev/full", place)
    assert done.returncode == 2
    assert done.stderr == (
        "fmsd: The output cannot be written (No space left on device); make room, or send it to "
        "another place.\n"
    )
    assert (place / "report" / "report.html").is_file()
    assert shell("fmsd roots 2> /dev/full", place).returncode == 0


def test_no_input_is_no_fault(place: Path) -> None:
    assert shell("fmsd roots <&-", place).returncode == 0


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "variables",
    [{"LC_ALL": "C"}, ASCII, ASCII | {"PYTHONIOENCODING": "latin-1"}],
    ids=["C", "ASCII", "latin-1"],
)
def test_files_are_utf_8_whatever_the_terminal_shows(
    variables: dict[str, str], tmp_path: Path
) -> None:
    name = "L\N{LATIN SMALL LETTER O WITH STROKE}RA \N{GREEK SMALL LETTER ALPHA}"
    finished(tmp_path / "runs" / "one", ["data=ff", f"method={name}"], 0)
    finished(tmp_path / "runs" / "two", ["data=ff", "method=lora"], 0)
    done = shell(f"fmsd {REPORT}", tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert re.search("^[|│] L", done.stdout, re.MULTILINE), done.stdout
    for file in ("results.csv", "results.md", "report.html"):
        assert name in (tmp_path / "report" / file).read_text(encoding="utf-8")


def test_a_word_that_is_not_utf_8_is_refused_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"caf\xe9")
    assert main(["report", f"runs={name}"]) == 2
    sentence = " is not UTF-8; rename the file or folder that it names.\n"
    assert capsys.readouterr().err == f"fmsd: runs='caf\\xe9'{sentence}"
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    monkeypatch.chdir(tmp_path / name)
    assert main(["train", "data=synthetic"]) == 2
    assert capsys.readouterr().err == f"fmsd: {tmp_path}/caf\\xe9{sentence}"
    assert list(Path().iterdir()) == []
