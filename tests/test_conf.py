"""Contracts of the configuration: every file composes and fits what it configures."""

import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import timm
import torch
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fmsd.cli.build import build, check_targets
from fmsd.cli.compose import add_others
from fmsd.cli.files import CONF
from fmsd.cli.main import main
from fmsd.cli.verbs import VERBS
from fmsd.data.corruptions import chosen
from fmsd.errors import InputError
from fmsd.models.detector import detector

ROOT = CONF.parent
GROUPS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if not path.name.startswith("_") and path.parent.name != "folder")
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def compose(verb: str, *overrides: str) -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(verb, list(overrides))


def targets(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from targets(child)


def verb_of(experiment: str) -> str:
    """The verb that an experiment is a recipe of, from its first command."""
    path = ROOT / "experiments" / f"{experiment}.yaml"
    words = path.read_text().partition("# Command: ")[2].split() if path.is_file() else []
    return words[1] if words[:1] == ["fmsd"] and words[1] in ("merge", "evaluate") else "train"


@pytest.mark.parametrize(("group", "choice"), GROUPS)
def test_every_choice_binds_to_the_signature_of_its_target(group: str, choice: str) -> None:
    extra = {
        "folder": [],
        "table": ["data.train=[a]", "data.test=[a]"],
        "yunet": ["data=synthetic"],
        "deepfakebench": ["data.train=[a]", "data.test=[a]", "data.source.file=x.json"],
    }
    verb = {"merger": "merge", "detector": "extract", "experiments": verb_of(choice)}.get(group, "train")
    extra = {**extra, "merge": ["specialists=/runs", "seed=0"], "robust": ["run=/run"]}
    config = OmegaConf.to_container(compose(verb, f"{group}={choice}", *extra.get(choice, [])), resolve=False)
    assert isinstance(config, dict)
    for node in targets(config):
        module, _, name = node["_target_"].rpartition(".")
        function = getattr(importlib.import_module(module), name)
        arguments = {key: value for key, value in node.items() if not key.startswith("_")}
        inspect.signature(function).bind_partial(**arguments)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_a_configuration(verb: str) -> None:
    needed = {name: ["data=synthetic"] for name in ("doctor", "extract", "index", "pack")}
    assert compose(verb, *needed.get(verb, [])) is not None


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_opens_with_claim_and_command(name: str) -> None:
    text = (ROOT / "experiments" / f"{name}.yaml").read_text()
    assert "# Claim: " in text
    assert "# Command: " in text
    if verb_of(name) == "merge":
        config = compose("merge", f"experiments={name}", "specialists=/runs", "seed=0")
        build(config.merger)
        assert list(config.experts) == ["/runs/seed0/faceswap", "/runs/seed0/stylegan2", "/runs/seed0/migan"]
        return
    if verb_of(name) == "evaluate":
        config = compose("evaluate", f"experiments={name}", "run=/run")
        assert len(chosen(list(config.corrupt), list(config.severities))) > 1
        return
    config = compose("train", f"experiments={name}", "data.root=/data")
    for part in ("backbone", "method", "wrapper", "optimizer", "schedule", "trainer", "data"):
        build(config[part])


TABLES = yaml.safe_load((CONF / "reproduce.yaml").read_text())
STEPS = sorted({(name, step) for name, steps in TABLES["steps"].items() for step in steps if step.startswith("train")})
ELSEWHERE = {"ff++": ("Deepfakes", "NeuralTextures"), "faces": ("faceswap", "stylegan2", "migan")}


@pytest.mark.parametrize(("data", "forgeries"), list(ELSEWHERE.items()), ids=list(ELSEWHERE))
@pytest.mark.parametrize(("name", "step"), STEPS, ids=[f"{name}{place}" for place, (name, _) in enumerate(STEPS)])
def test_every_training_behind_a_table_composes_on_the_faces_and_on_the_full_protocol(
    name: str, step: str, data: str, forgeries: tuple[str, ...]
) -> None:
    words = step.format(out="out", seed="0", forgeries=",".join(forgeries), forgery=forgeries[-1], first=forgeries[0]).split()[2:]
    experiment = next(word.partition("=")[2] for word in words if word.startswith("experiments="))
    swept = yaml.safe_load((ROOT / "experiments" / f"{experiment}.yaml").read_text())["hydra"]["sweeper"]["params"]
    given = {word.partition("=")[0]: word for word in [*(f"{key}={value}" for key, value in swept.items()), *words]}
    overrides = OverridesParser.create().parse_overrides([word for key, word in given.items() if not key.startswith("hydra.")])
    for job in BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]:
        config = compose("train", *job, *(["data=ff++", "backbone=clip_vit_l14"] if data == "ff++" else []))
        for part in ("backbone", "method", "wrapper", "data"):
            assert build(config[part]) is not None
        assert (config.backbone.size, config.data.name) == ((224, "ff++") if data == "ff++" else (64, "faces"))
        learned = {"align": [other for other in forgeries if other != config.get("unseen")], "merge": [config.get("family")]}.get(name)
        assert config.data.train_forgeries == (None if config.get("family") == "joint" else learned)


def test_only_a_forgery_that_is_there_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "experiments=align", "hydra.mode=RUN", "forgeries=[a,c]", "unseen=b"]) == 2
    assert "b is none of a, c; choose one of these" in capsys.readouterr().err


def test_the_parts_that_training_takes_are_factories() -> None:
    config = compose("train")
    for part in ("backbone", "method", "optimizer", "schedule", "trainer"):
        assert isinstance(build(config[part]), functools.partial)


def test_the_embedded_data_brings_its_backbone_unless_another_is_chosen() -> None:
    assert compose("train", "data=synthetic").backbone.weights == "package:demo_vit.safetensors"
    assert compose("train", "data=synthetic", "backbone=vit_tiny").backbone.name.startswith("vit_tiny")
    assert compose("train", "data=ff++").backbone.name == "vit_large_patch14_clip_224.openai"
    assert compose("train", "data=ffpp").data == compose("train", "data=ff++").data


def test_deepfakebench_s_folder_serves_the_datasets_whose_file_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dataset_json").mkdir()
    (tmp_path / "dataset_json" / "Celeb-DF-v2.json").touch()
    monkeypatch.setenv("FMSD_DEEPFAKEBENCH", str(tmp_path))
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", ["data=ff++", "data.root=/ff", "data.test=[ff++,celebdf_v2,dfdc]", "data.roots.uadfv=/uadfv"])
        add_others(config.data)
    assert (config.data.roots.celebdf_v2, config.data.roots.dfdc, config.data.roots.uadfv) == (str(tmp_path), None, "/uadfv")


def test_each_method_brings_its_learning_rate_and_the_command_line_wins() -> None:
    assert compose("train", "method=full").optimizer.lr < compose("train", "method=fmsd").optimizer.lr
    assert compose("train", "method=full", "optimizer.lr=0.5").optimizer.lr == 0.5


def test_targets_that_are_not_there_are_refused_and_others_may_lie_anywhere() -> None:
    for target in ("os.sytem", "no_such_package.x", "fmsd.mask.nothing", "x", "", 3):
        with pytest.raises(InputError, match=rf"_target_ '?{target}'? cannot be imported.*PYTHONPATH"):
            check_targets({"a": [{"_target_": target}]})
        with pytest.raises(InputError, match="cannot be imported"):
            build(OmegaConf.create({"_target_": target, "x": 1}))
    assert build(OmegaConf.create({"_target_": "collections.Counter", "a": 2})) == {"a": 2}


def test_arguments_that_do_not_fit_are_refused() -> None:
    config = compose("train", "+method.rnk=3")
    with pytest.raises(InputError, match=r"fmsd\.peft\.fmsd\.fmsd does not fit it.*rnk"):
        build(config.method)
    config = compose("train", "data=folder", "data.root=/data", "+data.source.lay_out=x")
    with pytest.raises(InputError, match=r"DataModule does not fit it.*lay_out"):
        build(config.data)


@pytest.mark.parametrize("choice", [choice for group, choice in GROUPS if group == "backbone"])
def test_every_backbone_can_be_built_and_its_weights_are_known_to_timm(choice: str) -> None:
    config = compose("train", f"backbone={choice}", "backbone.pretrained=false").backbone
    with torch.device("meta"):
        model = detector(**{"weights": None, **{key: value for key, value in config.items() if key[0] != "_" and key != "weights"}})
    assert model(torch.empty(1, 3, config.size, config.size, device="meta")).shape == (1,)
    assert choice == "demo_vit" or any(known.startswith(config.name) for known in timm.list_pretrained())


def test_every_method_wrapper_and_merger_has_a_page() -> None:
    pages = {path.stem for path in Path(ROOT / "docs" / "methods").glob("*.md")}
    assert {choice for group, choice in GROUPS if group in ("method", "merger", "wrapper")} <= pages


def test_slurm_starts_a_task_for_every_process_of_the_trainer() -> None:
    for asked, expected in (([], (1, 1, 1)), (["trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2"], (2, 4, 4))):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            launcher = hydra.compose("train", ["hydra/launcher=slurm", *asked], return_hydra_config=True).hydra.launcher
        assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == expected
        assert launcher._target_.endswith("SlurmLauncher")


def test_slurm_without_a_gpu_starts_one_task_per_job_of_an_extraction() -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["data=synthetic", "out=/crops", "shard=0", "shards=2", "hydra/launcher=slurm_cpu"]
        launcher = hydra.compose("extract", overrides, return_hydra_config=True).hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (1, 1, None)
    assert launcher._target_.endswith("SlurmLauncher")
    OmegaConf.to_container(launcher, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("words", [["evaluate", "run=x", "corrupt=jpeg,h264"], ["train", "data.forgeries=a,b"]])
def test_a_list_without_brackets_is_answered_with_the_list(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    key, _, values = words[-1].partition("=")
    assert f"give them as a list, {key}='[{values}]'" in capsys.readouterr().err
