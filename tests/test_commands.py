"""The command line: words as people type them, help, and what is said to mistakes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fmsd.cli.conf_files import groups
from fmsd.cli.examining import with_unread_data
from fmsd.cli.file_words import split_files
from fmsd.cli.help import file_header, file_keys, help_page
from fmsd.cli.hydra_run import output_error
from fmsd.cli.main import USAGE, main
from fmsd.cli.options import OPTIONS, is_sweep
from fmsd.cli.overrides import BARE, to_hydra_overrides
from fmsd.errors import InputError
from fmsd.package_files import CONF
from fmsd.quoting import hydra_quote
from tests.conftest import grow_tree

VERBS = sorted(path.stem for path in CONF.glob("*.yaml"))

NAMES = [
    "a=b", "a(b)", "a[1]", "[a]", "{a}", "a,b", "100%", "a b", "#1", "it's", 'say "a"', "$HOME",
    "a$b", "~x", "\u00e9t\u00e9", "\u6570\u636e", "a;b", "a&b|c", "back\\slash", "ends\\",
    "'quoted'", "`x`", "<a>", "a:b", "a*b?", "!x", "x@y", "1e5", "007", "true", "null ", " blank",
    "nan", "a\\'b", "-x",
]  # fmt: skip
"""Names of folders that mean something to Hydra, a shell or YAML."""


@pytest.mark.parametrize("name", [*NAMES, "${x}", "a${b", ""])
def test_a_quoted_text_is_read_as_it_was(name: str) -> None:
    value = OverridesParser.create().parse_override(f"x={hydra_quote(name)}").value()
    assert isinstance(value, str)
    assert OmegaConf.create({"x": value}).x == name


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_taken_as_it_stands(name: str) -> None:
    folder = f"/data/{name}"
    words = [
        f"data.root={folder}",
        f"+data.root={folder}",
        f"run={folder}",
        f"hydra.run.dir={folder}",
        f"experts=[{folder}]",
    ]
    for word in to_hydra_overrides(
        "train", words if "," not in name and not {"'", '"', "["} & {*name} else words[:4], {}
    ):
        value = OverridesParser.create().parse_override(word).value()
        assert value == (
            [folder.strip()] if word.startswith("experts") else folder
        )  # blanks around the items of a list are none of theirs


def test_paths_that_are_quoted_interpolated_or_swept_stay_what_they_are() -> None:
    words = [
        "data.root='/a b'",
        "out=${run}/x",
        "data.manifest=null",
        "data.root=/plain/path",
        "method.rank=4,8",
        "learner.clip=null",
    ]
    assert to_hydra_overrides("train", words, {}) == words
    assert to_hydra_overrides("evaluate", ["-m", "run=/a(1),/b"], {}) == ["-m", "run='/a(1)',/b"]
    assert to_hydra_overrides("train", ["-m", "method=a,b"], {"method": ["a", "b"]}) == [
        "-m",
        "method=a,b",
    ]
    assert to_hydra_overrides("merge", ["search=alpha=0.1,0.2"], {}) == ["search='alpha=0.1,0.2'"]


@pytest.mark.parametrize("name", ["a=b (1), [x] {y} #2 100%", "it's \u00e9"])
def test_data_is_found_in_a_folder_of_any_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grow_tree(tmp_path / name, domains=("real", "swap"), videos=2)
    out = tmp_path / f"{name}.parquet"
    assert main(["index", "data=folder", f"data.root={tmp_path / name}", f"out={out}"]) == 0, (
        capsys.readouterr().err
    )
    assert out.is_file()


@pytest.mark.parametrize("verb", VERBS)
def test_every_key_of_a_verb_has_a_line_of_help(verb: str) -> None:
    file, known = CONF / f"{verb}.yaml", groups(verb)
    bare = [
        key.name
        for key in file_keys(file)
        if key.value
        and not key.about
        and key.name not in known
        and not key.name.startswith("steps")
    ]
    assert not bare
    text = help_page(verb)
    assert file_header(file)[0].split()[0] in text
    for name, choices in known.items():
        assert name in text
        for choice in choices:
            assert choice in help_page(verb, [name])


def test_every_key_of_data_has_a_line_of_help() -> None:
    assert not [
        key.name
        for key in file_keys(CONF / "data" / "_dataset.yaml")
        if key.value and not key.about
    ]


@pytest.mark.parametrize(
    "file", sorted(CONF.glob("[!er]*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}"
)
def test_the_keys_in_help_are_those_of_the_file(file: Path) -> None:
    def dotted(node: object, prefix: str = "") -> set[str]:
        found = set[str]()
        for name, value in node.items() if isinstance(node, dict) else ():
            if name != "defaults" and not str(name).startswith("_"):
                found |= {f"{prefix}{name}"} | dotted(value, f"{prefix}{name}.")
        return found

    plain = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    shown = {key.name for key in file_keys(file)}
    assert shown <= dotted(plain)
    assert {name for name in dotted(plain) if "." not in name} <= shown


def test_the_options_are_those_of_hydra() -> None:
    actions = [
        action
        for action in get_args_parser()._actions
        if {*action.option_strings} - {"--help", "-h", "--version"}
    ]
    assert {name for action in actions for name in action.option_strings} == {*OPTIONS}
    for action in actions:
        option = OPTIONS[action.option_strings[0]]
        assert [*action.option_strings] == [name for name in (option.name, option.short) if name]
        assert (action.nargs != 0) == bool(option.value)
        assert [*(action.choices or [])] == option.names
        assert (action.const if option.value else None) == (option.default or None)


@pytest.mark.parametrize("name", sorted(OPTIONS))
@pytest.mark.parametrize("joined", [False, True])
def test_an_option_has_its_meaning_anywhere(name: str, joined: bool) -> None:
    option = OPTIONS[name]
    value = option.names[0] if option.names else option.value
    words = ([f"{name}={value}"] if joined else [name, value]) if value else [name]
    overrides = ["data.root=/x", "+seed=1", "~wrapper"]
    first, *others = (
        to_hydra_overrides("train", [*overrides[:place], *words, *overrides[place:]], {})
        for place in range(4)
    )
    assert others == [first] * 3
    parsed = get_args_parser().parse_args(first)  # ends the process where it refuses
    assert parsed.overrides == overrides
    key = option.name.removeprefix("--").replace("-", "_")
    assert getattr(parsed, key) == (value or True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--cfg"], "--cfg lacks its value; give --cfg=job|hydra|all."),
        (["--config-dir", "-m"], "--config-dir lacks its value; give --config-dir=FOLDER."),
        (["-cd="], "-cd lacks its value; give -cd=FOLDER."),
        (["-c", "jobs"], "There is no -c=jobs; choose one of job, hydra, all."),
        (["-m=3"], "-m has no value; leave =3 out."),
        (["seed=1", "--cfg", "job", "-m"], "--cfg and -m exclude each other; give one of them."),
    ],
)
def test_an_option_that_hydra_would_refuse_is_named(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "data=synthetic", *words]) == 2
    assert capsys.readouterr().err == f"fmsd: {sentence}\n"


@pytest.mark.parametrize("verb", ["demo", "predict"])
@pytest.mark.parametrize("words", [["-m", "run=a,b"], ["run=a", "hydra.mode=MULTIRUN"]])
def test_a_verb_without_sweep_says_so(
    verb: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, *words]) == 2
    assert f"fmsd: fmsd {verb} has no sweep; give " in capsys.readouterr().err


def test_a_sweep_is_one_by_its_option_or_its_mode() -> None:
    for words in (["-m"], ["seed=1", "--multirun"], ["hydra.mode=MULTIRUN"]):
        assert is_sweep(words)
    for words in ([], ["--cfg", "job"], ["hydra.mode=MULTIRUN", "hydra.mode=RUN"]):
        assert not is_sweep(words)
    swept = ["hydra.mode=MULTIRUN", "run=/a(1),/b"]
    assert to_hydra_overrides("evaluate", swept, {})[1] == "run='/a(1)',/b"


def test_options_between_overrides_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "method=lora", "--cfg", "job", "data=synthetic"]) == 0
    assert "_target_: fmsd." in capsys.readouterr().out


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "reproduce"])
def test_the_examples_of_help_are_commands_that_compose(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = file_header(CONF / f"{verb}.yaml")[1]
    assert len(examples) >= 2
    for example in examples:
        program, name, *words = [word for word in shlex.split(example) if word != "--json"]
        assert (program, name) == ("fmsd", verb)
        words, _ = split_files(verb, with_unread_data(verb, words), groups(verb))
        overrides = [word for word in to_hydra_overrides(verb, words, groups(verb)) if word != "-m"]
        parsed = OverridesParser.create().parse_overrides(overrides)
        single = [
            word
            for word, one in zip(overrides, parsed, strict=True)
            if not one.is_sweep_override() and not word.startswith("hydra/")
        ]
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            assert hydra.compose(verb, single) is not None


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], []])
def test_usage_names_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert text.strip() == USAGE
    assert all(f"\n  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize(
    "words", [["doctor", "--help"], ["help", "doctor"], ["doctor", "-h"], ["doctor", "help"]]
)
def test_help_of_a_verb_needs_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "what is wrong with a copy of a dataset" in text
    assert re.search(r"limit=20000 +most files that are opened", text)
    assert "ff++" in text
    assert "fmsd doctor data=ff++ data.root=/data/ff++" in text


def test_help_shows_the_keys_of_a_choice_with_what_it_is_made_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "--help", "method=fmsd", "data=ff++"]) == 0
    text = capsys.readouterr().out
    assert "method.subspaces=4" in text
    assert "method.mask.fraction=0.5" in text
    assert re.search(r"data\.frames=32 +largest number of frames per video", text)
    assert main(["train", "--help", "method=no"]) == 2
    assert "There is no method=no; choose one of" in capsys.readouterr().err


def test_comments_and_examples_of_help_go_on_in_the_next_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "# What it does,\n# in two lines.\n# Example: fmsd a \\\n#   b=c\n"
        "defaults:\n  - x: y    # of the list\n            # and more\n"
        "a: 1    # one\n        # two\nb:\n  # of nothing\n  c: {d: 1,\n      e: 2}\n  f: 2\n"
    )
    assert file_header(file) == ("What it does, in two lines.", ["fmsd a b=c"])
    assert file_keys(file) == [
        ("a", "1", "one two"),
        ("b", "", ""),
        ("b.c", "", ""),
        ("b.f", "2", ""),
    ]


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["version"]])
def test_the_version_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert re.fullmatch(r"fmsd \d+\.\d+\.\S+", capsys.readouterr().out.strip())


MISTAKES = [
    (["trian"], "There is no verb 'trian' (did you mean train?); choose one of"),
    (["train", "lr=1e-4"], "did you mean optimizer.lr?"),
    (["train", "epochs=4"], "did you mean trainer.max_epochs?"),
    (["train", "batch_size=4"], "did you mean data.batch_size?"),
    (["train", "gpus=2"], "did you mean trainer.devices?"),
    (["train", "optimizer.lrr=3"], "did you mean optimizer.lr?"),
    (["train", "dataset=ff++"], "did you mean data?"),
    (
        ["train", "--lr", "1e-4"],
        "fmsd has no option --lr; write overrides without dashes: lr=VALUE.",
    ),
    (["train", "--data.root=/x"], "write overrides without dashes: data.root=/x."),
    (["train", "key value"], "'key value' is no override; write key=value"),
    (["train", "data"], "data lacks its choice; give data=NAME: avdeepfake1m_pp"),
    (["train", "data=FF++"], "There is no data=FF++ (did you mean data=ff++?); choose one of"),
    (["train", "data=celeb-df-v2"], "did you mean data=celebdf_v2?"),
    (["train", "method=FMSD"], "did you mean method=fmsd?"),
    (["train", "method=[lora,probe]"], "give each a job of its own with -m method=lora,probe."),
    (["train", "method=lora,probe"], "give each a job of its own with -m method=lora,probe."),
    (["train", "data=null"], "data=null names no choice of its group; leave it out, or name one."),
    (["train", "optimizer=3"], "optimizer=3 names no choice of its group"),
    (["train", "data.root="], "data.root= is empty; give a path"),
    (
        ["train", "+optimizer.lr=3"],
        "optimizer.lr exists, so it cannot be added; leave the + out: optimizer.lr=VALUE.",
    ),
    (["train", "~methd"], "There is no config key 'methd' (did you mean method?)"),
    (["train", "data.train=a,b"], "data.train='[a,b]', or each to a job of its own with -m."),
    (
        ["train", "seed=0,1"],
        "seed=0,1 are several values; give each to a job of its own with -m seed=0,1.",
    ),
    (
        ["train", "trainer.max_epochs=a"],
        "trainer.max_epochs=a is no number; give e.g. trainer.max_epochs=",
    ),
    (
        ["train", "method=lora", "method.rank=a"],
        "method.rank=a is no number; give e.g. method.rank=",
    ),
    (
        ["train", "learner.compiled=yess"],
        "learner.compiled=yess is neither true nor false; give e.g. learner.compiled=false.",
    ),
    (["report", "runs=x", "resamples=a"], "resamples=a is no number; give e.g. resamples=1000."),
    (
        ["train", "backbone=demo_vit", "data.size=32"],
        "data.size=32 is not the size of the backbone, 64; set backbone.size=NUMBER",
    ),
    (["train", "+learner.x=1"], "Training has no setting learner.x; leave it out"),
    (["merge", "experts=[no/a,no/b]"], "There is no weights file and no run"),
    (["reproduce", "gen"], "There is no table gen; give the name of one: generalise"),
    (["doctor"], "fmsd doctor needs data; give data=NAME: avdeepfake1m_pp"),
    (["evaluate"], "fmsd evaluate needs run; give it as run=PATH."),
    (["evaluate", "run=x", "data.frames=3"], "unless data=NAME is given, too"),
    (["evaluate", "nowhere(1)"], "nowhere(1) is not the folder of a trained run"),
    (
        ["train", "trainer=ddp", "trainer.devices=null"],
        "trainer.devices=null is no number of devices; give a number, auto for all of them",
    ),
    (["train", "trainer.devices=0"], "trainer.devices=0 is no number of devices"),
    (["train", "trainer.devices=two"], "trainer.devices=two is no number of devices"),
    (["train", "trainer=ddp", "trainer.devices=[]"], "trainer.devices=[] is no number of devices"),
    (["train", "trainer=ddp", "trainer.num_nodes=null"], "trainer.num_nodes=null must be a whole"),
    (["train", "trainer.log_every_n_steps=null"], "must be a whole number from 0; give e.g."),
    (["train", "trainer.max_epochs=1.5"], "trainer.max_epochs=1.5 must be a whole number from -1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES]
)
def test_a_mistake_is_met_with_what_was_meant(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_advice_to_quote_a_value_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("a(b", "it's(", "a=[1"):
        assert main(["train", f"data.augment={value}"]) == 2
        (word,) = shlex.split(
            capsys.readouterr().err.rpartition("quote the value: ")[2].strip().removesuffix(".")
        )
        assert OverridesParser.create().parse_override(word).value() == value


def test_a_fault_in_a_file_of_ones_own_is_named_with_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text(
        "defaults: [_datase, _self_]\nname: mine\n"
    )
    (tmp_path / "own" / "data" / "bad.yaml").write_text("name: bad\nsource: {a: [}\n")
    flag = f"--config-dir={tmp_path / 'own'}"
    for words in (["data=mine"], ["data=synthetic", "data.test=[mine]"]):
        assert main(["train", flag, *words]) == 2
        assert (
            "data/mine.yaml names data/_datase, which does not exist; correct its defaults list."
            in capsys.readouterr().err
        )
    assert main(["train", flag, "data=bad"]) == 2
    error = capsys.readouterr().err
    assert "bad.yaml" in error
    assert "line 2" in error


def test_crops_and_packs_do_not_lie_among_the_data_they_are_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap"), videos=2)
    before = sorted(tmp_path.rglob("*"))
    for verb in ("extract", "pack"):
        assert (
            main(
                [
                    verb,
                    "data=folder",
                    f"data.root={tmp_path / 'data'}",
                    f"out={tmp_path / 'data' / 'out'}",
                ]
            )
            == 2
        )
        assert "lies inside data.root=" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_named_with_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    assert main(["train", f"hydra.run.dir={tmp_path / 'file'}"]) == 2
    assert (
        f"{tmp_path / 'file'} is a file, where a folder is wanted; choose another place with "
        "hydra.run.dir=PATH" in capsys.readouterr().err
    )
    assert main(["train", f"hydra.run.dir={tmp_path / 'file' / 'run'}"]) == 2
    assert "lies below a file, where a folder is wanted" in capsys.readouterr().err
    assert main(["train", f"hydra.run.dir={tmp_path / ('x' * 300)}"]) == 2
    assert "(File name too long); shorten its name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "hydra.run.dir=~nosuchuser/x"],
        ["train", "resume=~nosuchuser/x"],
        ["train", "data=folder", "data.root=~nosuchuser/x"],
        ["train", "data=folder", "data.root=x", "backbone.weights=~nosuchuser/x"],
        ["evaluate", "run=~nosuchuser/x"],
        ["fold", "run=x", "out=~nosuchuser/x"],
        ["fold", "run=~nosuchuser/x", "out=x"],
        ["merge", "experts=[~nosuchuser/x,y]", "out=x"],
        ["merge", "experts=[a,b]", "out=~nosuchuser/x"],
        ["index", "data=folder", "data.root=x", "out=~nosuchuser/x"],
        ["index", "data=folder", "data.manifest=~nosuchuser/x", "out=x"],
        ["doctor", "data=folder", "data.root=x", "out=~nosuchuser/x"],
        ["extract", "data=folder", "data.root=x", "detector.weights=~nosuchuser/x", "out=y"],
        ["pack", "data=folder", "data.root=x", "out=~nosuchuser/x"],
        ["report", "runs=~nosuchuser/x"],
        ["report", "runs=x", "out=~nosuchuser/x"],
        ["reproduce", "generalise", "out=~nosuchuser/x"],
    ],
    ids=" ".join,
)
def test_a_home_folder_that_is_not_there_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "There is no home folder for ~nosuchuser/x; write the whole path" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_error_of_another_file_is_no_refusal(tmp_path: Path) -> None:
    elsewhere = FileExistsError(17, "File exists", "/elsewhere/cache")
    assert output_error(elsewhere, [tmp_path / "run"]) is None
    assert (
        output_error(
            FileNotFoundError(2, "No such file", str(tmp_path / "run" / "x")), [tmp_path / "run"]
        )
        is None
    )
    inside = output_error(
        NotADirectoryError(20, "Not a directory", str(tmp_path / "run" / "x")), [tmp_path / "run"]
    )
    assert isinstance(inside, InputError)


def test_a_reader_that_goes_away_ends_help_quietly() -> None:
    command = f"{sys.executable} -m fmsd train --help | head -1"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_a_file_of_a_run_stands_for_its_run(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("run.json", "config.yaml", "checkpoints/best.ckpt", "other.json"):
        (run / name).write_text("{}")
    for name in ("run.json", "config.yaml", "checkpoints/best.ckpt"):
        assert to_hydra_overrides("evaluate", [f"run={run / name}"], {}) == [f"run='{run}'"]
        assert to_hydra_overrides("evaluate", [str(run / name)], {}) == [f"run='{run}'"]
        assert to_hydra_overrides("merge", [f"experts=[{run / name},x]"], {}) == [
            f"experts=['{run}',x]"
        ]
        assert to_hydra_overrides("train", [f"resume={run / name}"], {}) == [f"resume='{run}'"]
    assert to_hydra_overrides("evaluate", [f"run={run / 'other.json'}"], {}) == [
        f"run='{run / 'other.json'}'"
    ]
    assert to_hydra_overrides("train", [f"backbone.weights={run / 'run.json'}"], {}) == [
        f"backbone.weights='{run / 'run.json'}'"
    ]


@pytest.mark.slow
def test_training_prints_nothing_of_lightning_s_own(tmp_path: Path) -> None:
    """In a process of its own: what is imported when decides who sets the levels."""
    command = [
        sys.executable,
        "-m",
        "fmsd",
        "train",
        "data=folder",
        f"data.root={tmp_path / 'none'}",
        "backbone=demo_vit",
        "method=probe",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_bare_folder_is_the_run_of_verbs_about_one() -> None:
    for verb, key in BARE.items():
        assert to_hydra_overrides(verb, ["/runs/a(1)"], {}) == [f"{key}='/runs/a(1)'"]
