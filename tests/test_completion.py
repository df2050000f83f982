"""Completion in the shells: what is proposed, and that real shells type it."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from fmsd.cli.completion import SHELLS, candidates, replies, split_line
from fmsd.cli.conf_files import choices, groups
from fmsd.cli.json_flag import TABLE_VERBS
from fmsd.cli.main import main
from fmsd.package_files import CONF
from tests.conftest import ROOT
from tests.surroundings import python_path

VERBS = sorted(path.stem for path in CONF.glob("*.yaml"))

BREAKS = " \t\n\"'><=;|&(:"
"""COMP_WORDBREAKS of bash."""


def proposed(*words: str) -> list[str]:
    return candidates(words, VERBS)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some files."""
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "two").mkdir()
    (tmp_path / "my data").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_verbs_are_completed() -> None:
    assert proposed("tr") == ["train"]
    assert {*VERBS, "completion", "help"} <= {*proposed("")}
    assert proposed("help", "ev") == ["evaluate"]
    assert proposed("completion", "") == [*SHELLS]
    assert proposed("trian", "") == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "reproduce"])
def test_every_group_and_choice_of_a_verb_is_completed(verb: str) -> None:
    for group, names in groups(verb).items():
        assert f"{group}=" in proposed(verb, group[:-1])
        assert proposed(verb, f"{group}=") == [f"{group}={name}" for name in names]


def test_choices_go_on_behind_a_comma() -> None:
    assert proposed("train", "method=f") == ["method=fmsd", "method=full"]
    assert proposed("train", "-m", "method=lora,f") == ["method=lora,fmsd", "method=lora,full"]
    assert proposed("train", "-m", "method=fmsd,f") == ["method=fmsd,full"]  # each once
    assert proposed("train", "logger=[csv,ten") == ["logger=[csv,tensorboard"]
    assert proposed("train", "data=ff") == ["data=ff++", "data=ffiw", "data=ffpp"]
    assert proposed("train", "experiments=recipes/e") == [
        f"experiments={name}" for name in choices("experiments") if name.startswith("recipes/e")
    ]


def test_keys_are_completed_up_to_the_next_dot() -> None:
    assert proposed("train", "optimizer.l") == ["optimizer.lr="]
    assert proposed("train", "opt") == ["optimizer=", "optimizer."]
    assert proposed("train", "method.mask.fra") == ["method.mask.fraction="]
    assert "method.mask." in proposed("train", "method.")
    assert "method.mask.fraction=" not in proposed("train", "method.")
    assert proposed("train", "data.roots.celebdf_p") == ["data.roots.celebdf_pp="]
    assert proposed("train", "+see") == ["+seed="]
    assert proposed("train", "~wrap") == ["~wrapper"]
    assert proposed("train", "hydra.run") == ["hydra.run."]
    assert not [key for key in proposed("train", "data.") if "_target_" in key]


def test_keys_are_those_of_the_chosen_choices() -> None:
    assert proposed("train", "method.ra") == []  # fmsd has no rank
    assert proposed("train", "method=lora", "method.ra") == ["method.rank="]
    assert proposed("train", "-m", "method=fmsd,lora", "method.ra") == ["method.rank="]
    assert proposed("doctor", "data.bat") == []  # no batch is loaded
    assert proposed("train", "data.bat") == ["data.batches=", "data.batch_size="]
    assert proposed("evaluate", "data.ro") == []  # it has no data unless some is given
    assert proposed("evaluate", "data=ff++", "data.root=")


def test_the_commands_behind_a_table_take_the_keys_of_trainings() -> None:
    assert proposed("reproduce", "gen") == ["generalise"]
    assert proposed("reproduce", "generalise", "se") == ["seed=", "select="]
    assert proposed("reproduce", "generalise", "backbone=clip_vit_b") == ["backbone=clip_vit_b16"]
    assert not [key for key in proposed("reproduce", "steps") if key.startswith("steps")]


def test_flags_are_completed_and_what_follows_them(place: Path) -> None:
    assert proposed("train", "--c") == ["--cfg", "--config-dir="]
    assert proposed("train", "--cfg", "") == ["job", "hydra", "all"]
    assert proposed("train", "--config-dir", "ru") == ["runs/"]
    assert proposed("train", "--config-dir=ru") == ["--config-dir=runs/"]
    for verb in VERBS:
        assert ("--json" in proposed(verb, "--j")) == (verb in TABLE_VERBS)


def test_choices_of_a_folder_of_ones_own_are_completed(place: Path) -> None:
    (place / "conf" / "method").mkdir(parents=True)
    (place / "conf" / "method" / "fine.yaml").touch()
    (place / "conf" / "method" / "_base.yaml").touch()
    own = ["method=fine", "method=fmsd", "method=full"]
    assert proposed("train", "--config-dir=conf", "method=f") == own
    assert proposed("train", "--config-dir", "conf", "method=f") == own


def test_paths_are_completed_behind_the_keys_that_hold_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proposed("train", "data.root=") == [
        "data.root=my data/",
        "data.root=notes.txt",
        "data.root=runs/",
    ]
    assert proposed("train", "data.root=.h") == ["data.root=.hidden"]
    assert proposed("evaluate", "run=runs/o") == ["run=runs/one/"]
    assert proposed("evaluate", "runs/o") == ["runs/one/"]  # without its key
    assert proposed("evaluate", "-m", "run=runs/one,runs/t") == ["run=runs/one,runs/two/"]
    assert proposed("merge", "experts=[runs/one,runs/t") == ["experts=[runs/one,runs/two/"]
    assert proposed("train", "data.roots.celebdf_v2=no") == ["data.roots.celebdf_v2=notes.txt"]
    assert proposed("train", "data.root=nowhere/x") == []
    monkeypatch.setenv("HOME", str(place))
    assert proposed("train", "data.root=~/ru") == ["data.root=~/runs/"]
    assert proposed("train", "data.root=~nosuchuser/") == []


def test_a_switch_is_true_or_false() -> None:
    assert proposed("train", "head.normalise=") == ["head.normalise=true", "head.normalise=false"]
    assert proposed("train", "seed=") == []


@pytest.mark.parametrize(
    ("line", "words", "quote"),
    [
        ("fmsd tr", ["fmsd", "tr"], ""),
        ("fmsd train ", ["fmsd", "train", ""], ""),
        ("fmsd train out=a\\ b", ["fmsd", "train", "out=a b"], ""),
        ("fmsd train out='a b", ["fmsd", "train", "out=a b"], "'"),
        ('fmsd train "out=a b', ["fmsd", "train", "out=a b"], '"'),
        ("fmsd train 'a'\"b", ["fmsd", "train", "ab"], '"'),
    ],
)
def test_a_line_is_split_as_the_shell_splits_it(line: str, words: list[str], quote: str) -> None:
    assert split_line(line) == (words, quote)


@pytest.mark.parametrize(
    ("line", "breaks", "reply"),
    [
        ("fmsd tr", BREAKS, "train "),
        ("fmsd train resu", BREAKS, "resume="),
        ("fmsd train method=fm", BREAKS, "fmsd "),
        ("fmsd train method=fm", BREAKS.replace("=", ""), "method=fmsd "),
        ("fmsd train -m method=lora,fm", BREAKS, "lora,fmsd "),
        ("fmsd train data.root=my", BREAKS, "my\\ data/"),
        ("fmsd train data.root=my\\ d", BREAKS, "my\\ data/"),
        ("fmsd train data.root='my d", BREAKS, "my data/"),
        ('fmsd train "data.root=my d', BREAKS, "data.root=my data/"),
        ("fmsd train data.root=x:y/", BREAKS, "y/z "),
    ],
)
def test_bash_gets_what_it_puts_behind_its_own_break(
    line: str, breaks: str, reply: str, place: Path
) -> None:
    (place / "x:y").mkdir()
    (place / "x:y" / "z").touch()
    assert replies(["bash", line, breaks], VERBS) == [reply]


def test_what_cannot_be_completed_is_answered_with_nothing() -> None:
    for arguments in ([], ["bash"], ["bash", ""], ["zsh"], ["bash", "fmsd \"'\\", BREAKS]):
        assert replies(arguments, VERBS) == []


def test_a_shell_without_a_script_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2
    assert "give fmsd completion SHELL, one of bash, zsh, fish" in capsys.readouterr().err
    assert main(["completion", "csh"]) == 2
    assert "There is no completion for 'csh'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_says_how_it_is_used(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"# Completes fmsd in {shell}; ")
    assert f"fmsd completion {shell}" in first


def typed(shell: Sequence[str], place: Path, begin: str, keys: str, wanted: str) -> str:
    """What a shell on a terminal shows after some keys; `wanted` ends the wait.

    Args:
        begin: a command that makes it complete `fmsd`, and then prints `ready`.
    """
    program = place / "bin" / "fmsd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fmsd "$@"\n')
    program.chmod(0o755)
    variables = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": python_path(),
        "HOME": str(place),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }
    process, terminal = pty.fork()
    if not process:
        os.chdir(place)
        os.execvpe(shell[0], [*shell], variables)
    shown = ""

    def wait_for(text: str) -> None:
        nonlocal shown
        end = time.monotonic() + 20
        while text not in plain(shown) and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    shown += os.read(terminal, 4096).decode(errors="replace")
                except OSError:  # the shell has ended
                    break

    try:
        os.write(terminal, f"{begin}; echo re''ady\n".encode())
        wait_for("ready\n")
        shown = ""
        os.write(terminal, keys.encode())
        wait_for(wanted)
    finally:
        os.close(terminal)
        os.kill(process, 9)
        os.waitpid(process, 0)
    return plain(shown)


def plain(shown: str) -> str:
    """What a terminal was sent, without what moves its cursor and sets its colours."""
    return re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]|[\r\x07\x08]", "", shown)


SHELL_COMMANDS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(fmsd completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'eval "$(fmsd completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "fmsd completion fish | source"),
}

TYPED = [
    ("fmsd evalu\t", "evaluate "),
    ("fmsd train resu\tru\t", "resume=runs/"),
    ("fmsd train method=fm\t", "method=fmsd "),
    ("fmsd train -m method=lora,fm\t", "lora,fmsd "),
    ("fmsd train method=lora method.ra\t4", "method.rank=4"),
    ("fmsd train data.root=my\t", "data.root=my\\ data/"),
    ("fmsd evaluate run=runs/o\t", "run=runs/one/"),
]


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("keys", "line"), TYPED)
def test_a_real_shell_types_the_rest(shell: str, keys: str, line: str, place: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command, begin = SHELL_COMMANDS[shell]
    assert line in typed(command, place, begin, keys, line)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_script_is_valid(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = ROOT / "fmsd" / "cli" / "shells" / f"fmsd.{shell}"
    subprocess.run([shell, "-n", str(script)], check=True)
