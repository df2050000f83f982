"""What a run that comes from elsewhere may build: a downloaded folder runs no code of its own
choice.
"""

import json
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from fmsd.cli.build import build, logger_factories
from fmsd.cli.conf_files import walk
from fmsd.cli.loaded_runs import relocate_embedded_data
from fmsd.cli.main import main
from fmsd.cli.packaged_targets import GROUPS, packaged_key_path, packaged_targets
from fmsd.cli.run_loggers import foreign_destinations, trusted_loggers
from fmsd.cli.trust import check_loaded, load_run_config
from fmsd.data.synthetic.plan import VERSION
from fmsd.errors import InputError
from fmsd.package_files import CONF
from tests.conftest import ROOT, grow_tree


def settings(verb: str = "train", *overrides: str) -> Any:
    """The configuration of a run, as training writes it."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(verb, list(overrides))
        return OmegaConf.to_container(config, resolve=True)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """The configuration of a run on data that is not here."""
    found = settings(
        "train", "data=folder", "data.root=/nowhere", "backbone=demo_vit", "trainer=smoke"
    )
    found["choices"] = {"method": "fmsd", "data": "folder"}
    return {key: value for key, value in found.items() if key not in ("resume", "trust")}


class Bomb:
    """What makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.marker), "w")


def launch(marker: Path) -> dict[str, Any]:
    return {
        "_target_": "fmsd.engine.launcher.launch",
        "arguments": ["-c", f"open({str(marker)!r}, 'w')"],
        "count": 1,
    }


def unpickle(marker: Path) -> dict[str, Any]:
    file = marker.with_suffix(".pth")
    file.write_bytes(pickle.dumps(Bomb(marker)))
    return {
        "_target_": "timm.models.load_state_dict",
        "checkpoint_path": str(file),
        "weights_only": False,
    }


def write(marker: Path) -> dict[str, Any]:
    return {"_target_": "builtins.open", "_args_": [str(marker), "w"]}


Attack = Callable[[dict[str, Any], Path], None]

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


def folder(place: Path, config: dict[str, Any], finished: bool = True) -> Path:
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    if finished:
        (place / "run.json").write_text(json.dumps({"seed": 0, "manifests": {}}))
    return place


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


def change(**parts: Any) -> Attack:
    """Sets keys of groups of a configuration."""

    def apply(run: dict[str, Any], marker: Path) -> None:
        for group, keys in parts.items():
            run[group].update(keys)

    return apply


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


def test_what_every_packaged_file_names_may_be_loaded_where_it_names_it() -> None:
    for path in sorted(CONF.glob("*/*.yaml")):
        for place, node in walk(yaml.safe_load(path.read_text())):
            if isinstance(node, dict) and "_target_" in node and path.parent.name in GROUPS:
                known = {
                    target: where
                    for where, targets in packaged_targets().items()
                    for target in targets
                    if where[0] == path.parent.name
                }
                assert node["_target_"] in known, (path, place)


def test_the_packaged_targets_are_networks_data_and_ways_to_compute() -> None:
    targets = {target for known in packaged_targets().values() for target in known}
    assert {place[0] for place in packaged_targets()} == set(GROUPS)
    assert packaged_targets()["backbone",] == {"fmsd.models.detector.detector": True}
    assert packaged_targets()["data",] == {"fmsd.data.selection.Selection": None}
    assert packaged_targets()["trainer", "strategy"] == {
        "fmsd.engine.distributed.UnwrappedDDPStrategy": None
    }
    assert "fmsd.data.sources.celebdf.scan" in packaged_targets()["data", "source", "tree"]
    assert packaged_key_path(("data", "others", "far", "tree")) == ("data", "source", "tree")
    homes = {target.rpartition(".")[0] for target in targets}
    kinds = (
        r"fmsd\.(peft|merge|optim|data\.sources)\.\w+|fmsd\.tracking\.(wandb|mlflow|tensorboard)"
        r"|torch\.optim|timm\.optim"
    )
    parts = {
        "fmsd.models.detector",
        "fmsd.data.selection",
        "fmsd.engine.distributed",
        "lightning.pytorch",
    }
    assert {home for home in homes if not re.fullmatch(kinds, home)} == parts


@pytest.mark.parametrize(
    "words",
    [
        ("method=fmsd", "wrapper=roga", "data=celebdf_v2"),
        ("method=masm", "data=ff++", "trainer=ddp"),
        ("data=df40",),
    ],
)
def test_every_run_that_the_packaged_files_describe_is_loaded_again(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    config = settings(
        "train",
        *words,
        "logger=[wandb,mlflow,tensorboard]",
        "+backbone.drop_path_rate=0.1",
        "+trainer.max_steps=3",
    )
    config["data"]["others"] = {"far": settings("train", "data=dfdc")["data"]["source"]}
    path = folder(tmp_path / "run", config) / "config.yaml"
    assert OmegaConf.to_container(load_run_config(path)) == config
    merged = settings("merge", "merger=r2m")
    check_loaded({"merger": merged["merger"]}, path)


def test_the_record_of_a_merge_names_no_code(
    trained: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = folder(
        tmp_path / "run",
        trained | {"experts": [], "merger": {"_target_": "fmsd.merge.average.Average"}},
    )
    for merger, sentence in (
        (
            {"name": "average"} | launch(tmp_path / "marker"),
            "would call fmsd.engine.launcher.launch for merger",
        ),
        (
            {"name": "average", "weight": launch(tmp_path / "marker")},
            "would call fmsd.engine.launcher.launch for merger.weight",
        ),
        ({"name": "average", "weight": 1}, "does not fit fmsd.merge.average.Average at merger"),
        (None, "is not the record of a merge"),
    ):
        (run / "merge.json").write_text(json.dumps({"merger": merger}))
        assert main(["merge", f"to={run}", f"add={run}", "out=merged"]) == 2
        told = capsys.readouterr().err
        assert sentence in told
        assert str(run / "merge.json") in told
    (run / "merge.json").write_text("{")
    assert main(["merge", f"to={run}", f"add={run}", "out=merged"]) == 2
    assert "merge.json is no JSON" in capsys.readouterr().err
    assert not (tmp_path / "marker").exists()


def test_a_dataset_s_name_finds_no_file_outside_the_groups(
    trained: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.yaml").write_text(
        yaml.safe_dump({"source": launch(tmp_path / "marker"), "root": "/"})
    )
    config = yaml.safe_load(yaml.safe_dump(trained))
    climbing = "../" * len(CONF.parts) + str(tmp_path / "evil")[1:]
    config["data"]["test"] = [climbing]
    run = folder(tmp_path / "run", config)
    assert main(["evaluate", f"run={run}"]) == 2
    assert "/nowhere" in capsys.readouterr().err
    assert not (tmp_path / "marker").exists()


def test_a_run_s_loggers_send_nothing_where_the_run_says(
    trained: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fmsd"):
        nodes = settings(
            "train",
            "data=synthetic",
            "logger=[wandb,mlflow,tensorboard]",
            "logger.wandb.project=mine",
            "logger.wandb.group=g",
        )["logger"]
        assert trusted_loggers(nodes) == nodes
        nodes["wandb"]["offline"] = True
        assert trusted_loggers(nodes) == nodes
        assert not caplog.records
        for name, key, value in (
            ("mlflow", "uri", "http://stranger:5000"),
            ("wandb", "entity", "stranger"),
            ("wandb", "settings", {"base_url": "http://stranger"}),
            ("wandb", "offline", False),
            ("wandb", "dir", "/tmp"),
        ):
            other = nodes | {name: nodes[name] | {key: value}}
            assert foreign_destinations(other) == {name: f"logger.{name}.{key}={value}"}
            assert trusted_loggers(other) == {
                kept: node for kept, node in nodes.items() if kept != name
            }
            assert f"give trust='[fmsd.tracking.{name}.]'" in caplog.text
            assert trusted_loggers(other, [f"fmsd.tracking.{name}."]) == other
            caplog.clear()
    assert set(logger_factories(OmegaConf.create({"logger": nodes}).logger)) == {
        "wandb",
        "mlflow",
        "tensorboard",
    }
    assert trusted_loggers(None) == {}


def test_an_interrupted_run_does_not_choose_where_results_are_sent(
    trained: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow = {
        "_target_": "fmsd.tracking.mlflow.build_mlflow_logger",
        "_partial_": True,
        "project": "fmsd",
        "uri": "http://stranger:5000",
    }
    run = folder(tmp_path / "run", trained | {"logger": {"mlflow": mlflow}}, finished=False)
    assert main(["train", f"resume={run}"]) == 2
    told = capsys.readouterr().err
    assert "sets where results are sent (logger.mlflow.uri=http://stranger:5000)" in told
    assert "give trust='[fmsd.tracking.mlflow.]'" in told


@pytest.mark.parametrize(
    "trust", ["mypkg", "'[mypkg]'", "'[.]'", "'[my-pkg.]'", "'[mypkg..x.]'", "'[1.]'", "'[\"\"]'"]
)
def test_trust_is_given_to_whole_packages(
    trust: str,
    trained: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = folder(tmp_path / "run", trained)
    assert main(["fold", f"run={run}", "out=x.safetensors", f"trust={trust.strip(chr(39))}"]) == 2
    assert "is no package with its final dot; give e.g. trust='[mypkg.]'" in capsys.readouterr().err


def test_trust_without_a_run_would_have_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "data=synthetic", "trust=[mypkg.]"]) == 2
    assert "would have no effect" in capsys.readouterr().err


OWN = '''
import os

from fmsd.data.sources import folder


class Kept:
    """What is built and does nothing."""


def scan(root, dataset, layout):
    """A source of the user's own."""
    splits = {"train": "train", "val": "val", "test": "test"}
    yield from folder.scan(root, dataset, layout, splits=splits, real=["real"])
'''

OWN_DATA = """
defaults: [_dataset, _self_]
name: mine
source:
  _target_: {package}.scan
  _partial_: true
  dataset: mine
  layout: "{{split}}/{{domain}}/{{video}}"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's own that can be imported."""
    place = tmp_path / "code"
    (place / "mypkg_of_trust").mkdir(parents=True)
    (place / "mypkg_of_trust" / "__init__.py").write_text(OWN)
    monkeypatch.syspath_prepend(place)
    return place


def test_trust_adds_the_targets_of_a_package_and_of_no_other(
    own: Path, trained: dict[str, Any], tmp_path: Path
) -> None:
    config = yaml.safe_load(yaml.safe_dump(trained))
    config["wrapper"] = {"_target_": "mypkg_of_trust.Kept"}
    path = folder(tmp_path / "run", config) / "config.yaml"
    with pytest.raises(
        InputError,
        match=r"would call mypkg_of_trust\.Kept for wrapper.*trust='\[mypkg_of_trust\.\]'",
    ):
        load_run_config(path)
    for other in ("mypkg.", "mypkg_of_trust.sub.", "mypkg_of_trust_too."):
        with pytest.raises(InputError, match="would call mypkg_of_trust"):
            load_run_config(path, [other])
    assert isinstance(load_run_config(path, "mypkg_of_trust."), DictConfig)
    assert type(build(load_run_config(path, ["mypkg_of_trust."]).wrapper)).__name__ == "Kept"
    config["wrapper"] = {"_target_": "mypkg_of_trust.os.getcwd"}
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(
        InputError, match=r"would call mypkg_of_trust\.os\.getcwd, which is defined in posix|nt"
    ):
        load_run_config(path, ["mypkg_of_trust."])
    config["wrapper"] = {"_target_": "not_installed_anywhere.Method"}
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(
        InputError,
        match=r"_target_ 'not_installed_anywhere\.Method' cannot be imported.*PYTHONPATH",
    ):
        build(load_run_config(path, ["not_installed_anywhere."]).wrapper)


@pytest.mark.slow
def test_the_command_line_and_its_files_name_any_code_and_a_run_of_it_is_tested_with_trust(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(OWN_DATA.format(package="mypkg_of_trust"))
    data = (
        "--config-dir=conf",
        "data=mine",
        f"data.root={grow_tree(tmp_path / 'tree')}",
        "trainer=smoke",
    )
    assert main(["train", *data, "backbone=demo_vit", "method=probe", "hydra.run.dir=run"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run=run", "hydra.run.dir=again"]) == 2
    told = capsys.readouterr().err
    assert "would call mypkg_of_trust.scan for data.source" in told
    assert "give trust='[mypkg_of_trust.]'" in told
    assert not (tmp_path / "again").exists()
    assert main(["evaluate", "run=run", "trust=[mypkg_of_trust.]", "hydra.run.dir=again"]) == 0
    assert (tmp_path / "again" / "results.csv").read_text() == (
        tmp_path / "run" / "results.csv"
    ).read_text()
    plain = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(plain | {"data": None}))
    assert main(["evaluate", *data, "run=run", "hydra.run.dir=now"]) == 0
    assert (tmp_path / "now" / "results.csv").read_text() == (
        tmp_path / "run" / "results.csv"
    ).read_text()


def test_configurations_of_runs_are_read_in_one_place() -> None:
    reading = re.compile(
        r"OmegaConf\.load|yaml\.(unsafe_|full_)?load\b|yaml\.Loader|UnsafeLoader|FullLoader|weights_only=False|allow_pickle=True"
    )
    found = {
        str(path.relative_to(ROOT)): reading.findall(path.read_text())
        for path in sorted((ROOT / "fmsd").rglob("*.py"))
    }
    assert {name for name, matches in found.items() if matches} <= {"fmsd/safe_yaml.py"}
    calls = [
        call
        for path in (ROOT / "fmsd").rglob("*.py")
        for call in re.findall(r"torch\.load\([^)]*\)", path.read_text())
    ]
    assert calls
    assert all("weights_only=True" in call for call in calls)


def test_a_link_in_a_run_leads_nothing_out_of_it(
    trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept.txt").write_text("mine")
    run, unfinished = (
        folder(tmp_path / "run", trained),
        folder(tmp_path / "unfinished", trained, finished=False),
    )
    (run / "explanations").symlink_to(victim)
    (unfinished / "checkpoints").symlink_to(victim)
    for words in (
        ["explain", f"run={run}"],
        ["evaluate", f"run={run}"],
        ["train", f"resume={unfinished}"],
    ):
        assert main(words) == 2
        assert "is a link that leads out of the run" in capsys.readouterr().err
    assert [path.name for path in victim.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("record", [{}, {"seed": "abc"}, {"seed": 0, "manifests": []}])
def test_a_record_that_lacks_what_a_run_has_is_named(
    record: dict[str, Any], trained: dict[str, Any], tmp_path: Path, capsys
) -> None:
    run = folder(tmp_path / "run", trained)
    (run / "run.json").write_text(json.dumps(record))
    for words in (["evaluate"], ["explain"], ["fold", f"out={tmp_path / 'x.safetensors'}"]):
        assert main([words[0], f"run={run}", *words[1:]]) == 2
        assert re.search(
            r"run\.json does not hold the (seed|manifests) of a run; put it back",
            capsys.readouterr().err,
        )


def test_settings_of_weights_and_biases_in_a_run_s_folder_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    nodes = {"wandb": {"_target_": "fmsd.tracking.wandb.build_wandb_logger", "project": "mine"}}
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    (tmp_path / "run" / "wandb" / "settings").write_text("[default]\nbase_url = http://elsewhere\n")
    assert trusted_loggers(nodes, folder=tmp_path / "run") == nodes
    monkeypatch.chdir(tmp_path / "run")
    assert trusted_loggers(nodes, folder=tmp_path / "run") == {}
    assert "wandb/settings" in caplog.text


def test_the_embedded_dataset_of_a_loaded_run_is_drawn_in_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path / "cache"))
    run = OmegaConf.create(
        {
            "data": {
                "root": str(tmp_path / "new"),
                "source": {"_target_": "fmsd.data.sources.synthetic.scan"},
            }
        }
    )
    relocate_embedded_data(run)  # pyright: ignore[reportArgumentType]
    assert run.data.root == str(tmp_path / "cache")
    (tmp_path / "drawn" / f"synthetic-v{VERSION}").mkdir(parents=True)
    run.data.root = str(tmp_path / "drawn")
    relocate_embedded_data(run)  # pyright: ignore[reportArgumentType]
    assert run.data.root == str(tmp_path / "drawn")


def test_experts_of_two_backbones_are_named_before_anything_is_built(
    trained: dict[str, Any], tmp_path: Path, capsys
) -> None:
    one, other = (
        folder(tmp_path / "one", trained),
        folder(
            tmp_path / "other", trained | {"backbone": trained["backbone"] | {"name": "resnet18"}}
        ),
    )
    assert main(["merge", f"experts=[{one},{other}]", f"out={tmp_path / 'merged'}"]) == 2
    error = capsys.readouterr().err
    assert (
        f"one was trained from {trained['backbone']['name']}, another expert from resnet18; merge "
        "experts of one backbone" in error
    )
    assert not (tmp_path / "merged").exists()
