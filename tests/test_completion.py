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

from fmsd.cli.completion import (
    SHELLS,
    candidates,
    replies,
    shell_quote,
    shell_script,
    split_line,
)
from fmsd.cli.conf_files import choices, groups
from fmsd.cli.json_flag import TABLE_VERBS
from fmsd.cli.main import main
from fmsd.package_files import CONF
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


def test_keys_of_a_choice_of_ones_own_are_completed(place: Path) -> None:
    method = place / "conf" / "method"
    method.mkdir(parents=True)
    (method / "fine.yaml").write_text("defaults: [_fine, lora, _self_]\nof_its_own: 1\n")
    (method / "_fine.yaml").write_text("of_its_base: 1\n")
    for option in (["--config-dir=conf"], ["-cd", "conf"]):
        found = proposed("train", *option, "method=fine", "method.")
        assert {"method.of_its_own=", "method.of_its_base=", "method.rank="} <= {*found}
        assert "method.of_its_own=" not in proposed("train", *option, "method.")


@pytest.mark.parametrize("text", ["defaults: [bad]", "defaults: 3", "- 1", "a: [", "\x00"])
def test_a_damaged_choice_is_answered_with_nothing(text: str, place: Path) -> None:
    (place / "conf" / "method").mkdir(parents=True)
    (place / "conf" / "method" / "bad.yaml").write_text(text)
    words = ["train", "--config-dir=conf", "method=bad", "method."]
    for shell in ("zsh", "fish"):
        assert replies([shell, *words], VERBS) == []


def test_names_that_a_terminal_would_obey_are_left_out(place: Path) -> None:
    """A reply is a line; a control character in a name would be another one, or a command."""
    (place / "conf" / "method").mkdir(parents=True)
    for character in (*map(chr, range(1, 32)), "\x7f", "\x9b", "\u2028", "\udcff"):
        (place / "conf" / "method" / f"fine{character}x.yaml").touch()
        (place / f"fine{character}x").touch()
    (place / "conf" / "method" / "fine.yaml").touch()
    (place / "fine").touch()
    words = "train --config-dir=conf method=fin"
    for shell in ("zsh", "fish"):
        end = "" if shell == "fish" else " "
        assert replies([shell, *words.split()], VERBS) == [f"method=fine{end}"]
        assert replies([shell, "train", "out=fin"], VERBS) == [f"out=fine{end}"]
    assert replies(["bash", f"fmsd {words}", BREAKS], VERBS) == ["fine "]


def test_a_folder_of_many_files_is_looked_at_to_its_end(place: Path) -> None:
    folder = place / "many"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"a{number}").touch()
    wanted = [f"out=many/z{number}" for number in range(200)]
    for name in wanted:
        (place / name.removeprefix("out=")).touch()
    assert proposed("train", "out=many/z") == sorted(wanted)


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
    assert proposed("train", "learner.compiled=") == [
        "learner.compiled=true",
        "learner.compiled=false",
    ]
    assert proposed("train", "head.normalise=f") == [
        "head.normalise=false",
        "head.normalise=feature",
    ]
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


HOSTILE = [
    "$(touch P)", "`touch P`", "$HOME", "!!", "'", '"', "\\", "\\\\", "a\\", ";touch P;", "&", "|",
    "<", ">", "(", ")", "{a,b}", "[a]", "*", "?", "#", "~", "a b", "é", "%s", "=", ":", ",", "-",
]  # fmt: skip
"""Texts in names that a shell would obey."""


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_what_bash_types_is_the_word_that_was_meant(quote: str, place: Path) -> None:
    names = [f"q{text} 1" for text in HOSTILE]
    for name in names:
        (place / name).mkdir()
    (place / "qa 1").mkdir()  # what the pattern q[a] would match
    found = replies(["bash", f"fmsd evaluate {quote}q", BREAKS], VERBS)
    lines = [f"words {quote}{reply}{quote}\n" for reply in found]
    done = subprocess.run(
        ["bash", "-c", "words() { printf '%s\\n' \"$#$1\"; }\n" + "".join(lines)],
        capture_output=True,
        text=True,
        check=True,
        cwd=place,
    )
    shown = {line.removeprefix("1").removesuffix("/") for line in done.stdout.splitlines()}
    meaning = {"": "", "'": "'", '"': '$`"\\!'}[quote]
    assert shown == {name for name in [*names, "qa 1"] if not {*name} & {*meaning}}
    assert not (place / "P").exists()
    assert not replies(["bash", 'fmsd evaluate "q$', BREAKS], VERBS)  # bash would expand it


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_calls_the_program_that_printed_it(shell: str, tmp_path: Path) -> None:
    """By its absolute path, whatever stands in it, and not what is called fmsd elsewhere."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert f"{shell_quote(sys.executable, shell)} -P -m fmsd _complete" in shell_script(shell)
    for text in (*HOSTILE, "/a b/python", "a'b\\'c"):
        command = [shell, "-c", f"printf '%s' {shell_quote(text, shell)}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert done.stdout == text
    assert not [*tmp_path.iterdir()]


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

    Its `fmsd` prints the words that it gets, each in angle brackets.

    Args:
        begin: a command that makes it complete `fmsd`, and then prints `ready`.
    """
    program = place / "bin" / "fmsd"
    program.parent.mkdir()
    completion = f'[ "$1" = completion ] && exec {sys.executable} -m fmsd "$@"'
    program.write_text(f"#!/bin/sh\n{completion}\nprintf '<%s>' \"$@\"\n")
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


ENTERED = [
    ("fmsd evaluate my\t", "", "my data/"),
    ("fmsd evaluate my\\ d\t", "", "my data/"),
    ("fmsd evaluate 'my d\t", "'", "my data/"),
    ('fmsd evaluate "my d\t', '"', "my data/"),
    ("fmsd evaluate run=my\\ d\t", "", "run=my data/"),
    ("fmsd evaluate run='my d\t", "'", "run=my data/"),
    ('fmsd evaluate "run=my d\t', '"', "run=my data/"),
    ("fmsd evaluate it\t", "", "it's/"),
    ("fmsd evaluate q\t", "", "q$(touch PWNED)x/"),
    ("fmsd evaluate r\\`\t", "", "r`touch PWNED`x/"),
]
"""Keys, the quote that they leave open, and the word that `fmsd` gets at the end."""


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("keys", "quote", "word"), ENTERED)
def test_what_a_real_shell_types_is_the_word_that_was_meant(
    shell: str, keys: str, quote: str, word: str, place: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for name in ("it's", "q$(touch PWNED)x", "r`touch PWNED`x"):
        (place / name).mkdir()
    command, begin = SHELL_COMMANDS[shell]
    replaced = shell == "zsh" and "='" in keys  # zsh replaces such a quote by backslashes
    closing = "" if shell == "bash" or replaced else quote  # bash closes it
    wanted = f"<evaluate><{word}>"
    assert wanted in typed(command, place, begin, f"{keys}{closing}\n", wanted)
    assert not (place / "PWNED").exists()


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_real_shell_runs_no_name(shell: str, quote: str, place: Path) -> None:
    """Whatever is typed for a folder of such a name, Enter does not run it."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for name in ("q$(touch PWNED)x", "r`touch PWNED`x", "s';touch PWNED;'x"):
        (place / name).mkdir()
    command, begin = SHELL_COMMANDS[shell]
    lines = [f"fmsd evaluate {quote}{start}\t{quote}\n\x03" for start in ("q", "r", "s", "q$")]
    typed(command, place, begin, f"{''.join(lines)}echo al''l\n", "all")
    assert not (place / "PWNED").exists()


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_the_word_on_the_line_is_not_run(shell: str, place: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    evil = place / "evil" / "fmsd"
    evil.parent.mkdir()
    evil.write_text("#!/bin/sh\ntouch PWNED\n")
    evil.chmod(0o755)
    command, begin = SHELL_COMMANDS[shell]
    assert "train " in typed(command, place, begin, "evil/fmsd tr\t", "train ")
    assert not (place / "PWNED").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_valid(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(shell_script(shell))
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_words_of_predict_complete_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.mp4", "film.mp4", "frames.mp4"):
        Path(name).touch()
    assert proposed("predict", "run=r", "film") == ["film.mp4"]
    assert proposed("predict", "f") == ["files=", "frames=", "fps=", "film.mp4", "frames.mp4"]
    assert proposed("predict", "list=f") == ["list=film.mp4", "list=frames.mp4"]
    assert proposed("predict", "--", "-") == ["-dash.mp4"]
