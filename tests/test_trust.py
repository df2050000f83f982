"""A run from elsewhere runs no code of its own, and changes only how it computes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmsd.cli.main import main
from fmsd.cli.trust import load_run_config
from fmsd.errors import InputError
from tests.foreign_runs import Attack, change, folder, foreign_config, launch, unpickle, write


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    return foreign_config()


ATTACKS: dict[str, tuple[Attack, str]] = {
    "a process": (
        lambda run, marker: run.update(backbone=launch(marker)),
        r"would call fmsd\.engine\.launcher\.launch for backbone.*trust=",
    ),
    "a pickle": (
        lambda run, marker: run.update(backbone=unpickle(marker)),
        r"would call timm\.models\.load_state_dict for backbone",
    ),
    "a file": (
        lambda run, marker: run["trainer"].update(max_epochs=write(marker)),
        r"would call builtins\.open for trainer\.max_epochs",
    ),
    "a writer": (
        lambda run, marker: run.update(
            data={"_target_": "fmsd.runs.folder.write_text", "path": str(marker), "text": "x"}
        ),
        r"would call fmsd\.runs\.folder\.write_text for data",
    ),
    "nested": (
        lambda run, marker: run["backbone"].update(img_size=launch(marker)),
        r"would call .*launch for backbone\.img_size",
    ),
    "in a list": (
        lambda run, marker: run["data"].update(test=[launch(marker)]),
        r"would call .*launch for data\.test\.0",
    ),
    "a part not built": (
        lambda run, marker: run["optimizer"].update(betas=launch(marker)),
        r"would call .*launch for optimizer\.betas",
    ),
    "the environment": (
        lambda run, _: run["data"].update(name="${oc.env:HOME}"),
        r"would look something up: '\$\{oc.env:HOME\}' at data\.name",
    ),
    "arguments by place": (
        lambda run, _: run["trainer"].update(_args_=["cpu"]),
        "has _args_ at trainer",
    ),
    "another group's": (
        lambda run, _: run.update(backbone={"_target_": "fmsd.optim.erm.ERM"}),
        r"would call fmsd\.optim\.erm\.ERM for backbone",
    ),
    "an unknown argument": (
        lambda run, _: run["data"].update(odd=1),
        r"does not fit fmsd\.data\.selection\.Selection at data .*'odd'",
    ),
}
"""What a stranger writes into the configuration of a run, and a part of the sentence that refuses
it.
"""

VERBS = {
    "evaluate": ["evaluate", "run=RUN"],
    "explain": ["explain", "run=RUN"],
    "fold": ["fold", "run=RUN", "out=fold.safetensors"],
    "merge": ["merge", "experts=[RUN,RUN2]", "out=merged"],
    "add": ["merge", "to=RUN", "add=RUN2", "out=merged"],
    "resume": ["train", "resume=RUN"],
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_run_from_elsewhere_runs_nothing_of_its_own(
    verb: str,
    attack: str,
    trained: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile, sentence = ATTACKS[attack]
    config = yaml.safe_load(yaml.safe_dump(trained))
    hostile(config, tmp_path / "marker")
    run = folder(tmp_path / "run", config, finished=verb != "resume")
    folder(tmp_path / "run2", trained)
    if verb == "add":
        (run / "config.yaml").write_text(
            yaml.safe_dump(
                config | {"experts": [], "merger": {"_target_": "fmsd.merge.average.Average"}}
            )
        )
        (run / "merge.json").write_text(json.dumps({"merger": {"name": "average"}}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = [
        word.replace("RUN2", str(tmp_path / "run2")).replace("RUN", str(run))
        for word in VERBS[verb]
    ]
    assert main(words) == 2
    (told,) = capsys.readouterr().err.splitlines()
    if (verb, attack) == ("fold", "an unknown argument"):
        assert (
            "holds no adapter" in told
        )  # the argument is the data's, which folding does not build
    else:
        assert re.search(sentence, told)
        assert str(run / "config.yaml") in told
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


OTHERS: dict[str, tuple[Attack, str]] = {
    "timm's checkpoint": (
        change(backbone={"checkpoint_path": "x.pth"}),
        r"sets backbone\.checkpoint_path, which could do more",
    ),
    "timm's address": (
        change(backbone={"pretrained_cfg": {"url": "http://x/y.pth"}}),
        r"sets backbone\.pretrained_cfg",
    ),
    "timm's overlay": (
        change(backbone={"pretrained_cfg_overlay": {"file": "x.pth"}}),
        r"sets backbone\.pretrained_cfg_overlay",
    ),
    "timm's cache": (change(backbone={"cache_dir": "/tmp/x"}), r"sets backbone\.cache_dir"),
    "a nested value for timm": (
        change(backbone={"norm_layer": {"a": 1}}),
        r"sets backbone\.norm_layer",
    ),
    "the trainer's folder": (
        change(trainer={"default_root_dir": "/tmp/x"}),
        r"sets trainer\.default_root_dir",
    ),
    "the trainer's profiler": (change(trainer={"profiler": "pytorch"}), r"sets trainer\.profiler"),
    "the trainer's registry": (
        change(trainer={"model_registry": "me/model"}),
        r"sets trainer\.model_registry",
    ),
    "callbacks": (
        change(
            trainer={
                "callbacks": [
                    {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "/tmp"}
                ]
            }
        ),
        r"would call lightning\.pytorch\.callbacks\.ModelCheckpoint for trainer\.callbacks\.0",
    ),
    "a strategy's hook": (
        change(
            trainer={
                "strategy": {
                    "_target_": "fmsd.engine.distributed.UnwrappedDDPStrategy",
                    "start_method": "fork",
                }
            }
        ),
        r"sets trainer\.strategy\.start_method",
    ),
    "a source in a trainer": (
        change(trainer={"strategy": {"_target_": "fmsd.data.sources.folder.scan"}}),
        r"for trainer\.strategy",
    ),
    "called, not kept": (change(trainer={"_partial_": False}), "has _partial_=False at trainer"),
    "recursion": (change(data={"_recursive_": False}), "has _recursive_ at data"),
    "a private key alone": (
        change(data={"roots": {"_convert_": "all"}}),
        r"has _convert_ at data\.roots",
    ),
    "no dotted name": (change(wrapper={"_target_": 3}), r"has the _target_ 3 at wrapper"),
    "a target with spaces": (
        change(wrapper={"_target_": "os.system "}),
        r"which is no dotted name",
    ),
    "another of other data": (
        change(
            data={
                "others": {
                    "far": {"_target_": "fmsd.runs.folder.write_text", "path": "x", "text": "y"}
                }
            }
        ),
        r"would call fmsd\.runs\.folder\.write_text for data\.others\.far",
    ),
    "below other data": (
        change(
            data={
                "others": {
                    "far": {
                        "_target_": "fmsd.data.sources.folder.scan",
                        "_partial_": True,
                        "layout": {"_target_": "os.getcwd"},
                    }
                }
            }
        ),
        r"would call os\.getcwd for data\.others\.far\.layout",
    ),
    "a key that looks up": (
        change(data={"roots": {"${oc.env:HOME}": None}}),
        "would look something up",
    ),
    "our own resolvers": (change(data={"name": "${digest:[a]}"}), "would look something up"),
    "an unknown setting of training": (change(learner={"folder": "/tmp"}), r"sets learner\.folder"),
    "Hydra's path": (
        lambda run, _: run.update(hydra={"searchpath": ["file:///tmp"]}),
        "has the key hydra",
    ),
    "Hydra's callbacks": (
        lambda run, marker: run.update(hydra={"callbacks": {"x": launch(marker)}}),
        "has the key hydra",
    ),
    "a new key": (
        lambda run, marker: run.update(note=launch(marker)),
        "would call .*launch for note",
    ),
    "a part without target": (
        lambda run, _: run.update(wrapper={"rho": 1}),
        "wrapper has no _target_",
    ),
    "a logger without target": (
        lambda run, _: run.update(logger={"x": {"project": "y"}}),
        r"logger\.x has no _target_",
    ),
    "a list of loggers": (
        lambda run, marker: run.update(logger=[launch(marker)]),
        "logger has no _target_",
    ),
    "no backbone": (lambda run, _: run.pop("backbone") and None, "has no backbone"),
}


@pytest.mark.parametrize("attack", OTHERS)
def test_the_configuration_of_a_run_sets_only_how_it_computes(
    attack: str, trained: dict[str, Any], tmp_path: Path
) -> None:
    hostile, sentence = OTHERS[attack]
    config = yaml.safe_load(yaml.safe_dump(trained))
    hostile(config, tmp_path / "marker")
    run = folder(tmp_path / "run", config)
    with pytest.raises(InputError, match=sentence) as refusal:
        load_run_config(run / "config.yaml")
    assert refusal.value.remedy
    assert not (tmp_path / "marker").exists()


LAUGHS = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)),
    ]
)

TEXTS = {
    LAUGHS: r"has the YAML alias \*a0",
    (
        "a: !!python/object/apply:os.system [touch marker]"
    ): "has the YAML tag .*python/object/apply:os.system",
    "a: !!python/object/apply:pathlib.Path [x]": "has the YAML tag",
    "a: " + "[" * 2000 + "]" * 2000: "more than 32 levels",
    "a: " + "x" * 2**21: "2,097,155 characters",
    "a: [": "is no configuration",
    "a: 1\na: 2": "is no configuration",
    "": "is no configuration",
    "- 1": "is no configuration",
    "just words": "is no configuration",
    "data: ${oc.env:": "is no configuration|would look",
}


@pytest.mark.parametrize(("text", "sentence"), TEXTS.items(), ids=[text[:12] for text in TEXTS])
def test_a_file_that_is_no_plain_configuration_is_refused(
    text: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_run_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load_run_config(tmp_path / "config.yaml")
