"""Contracts of the configuration: every file composes and fits what it configures."""

import functools
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import hydra
import polars as pl
import pytest
import timm
import torch
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from fmsd.cli.build import LOADER_KEYS, build, build_data, check_targets
from fmsd.cli.conf_files import walk
from fmsd.cli.data_config import add_test_sources
from fmsd.cli.main import main
from fmsd.cli.merging import is_backbone_chosen, settings_of_experts
from fmsd.cli.verbs import VERBS
from fmsd.data.loading.corruptions import parse_corruptions
from fmsd.errors import InputError
from fmsd.models.detector import detector
from fmsd.package_files import CONF
from fmsd.runs.configuration import settings_digest, training_settings
from fmsd.runs.folder import Run

ROOT = CONF.parent
GROUPS = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if not path.name.startswith("_") and path.parent.name not in ("folder", "loader")
)
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.yaml"))
METHODS = sorted(choice for group, choice in GROUPS if group == "method")


def compose(verb: str, *overrides: str) -> Any:
    """The configuration of a job; what it takes from Hydra's own, the names of its choices, is
    resolved as the command line would.
    """
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(verb, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config.hydra
    return config


def build_part(config: Any, part: str) -> Any:
    """What the command line builds of a part of the configuration."""
    return build_data(config.data) if part == "data" else build(config[part])


def targets(config: Any) -> list[dict[str, Any]]:
    return [node for _, node in walk(config) if isinstance(node, dict) and "_target_" in node]


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
        "mediapipe": ["data=synthetic"],
        "deepfakebench": ["data.train=[a]", "data.test=[a]", "data.source.file=x.json"],
    }
    verb = {"merger": "merge", "detector": "extract", "experiments": verb_of(choice)}.get(
        group, "train"
    )
    extra = {**extra, "merge": ["specialists=/runs", "seed=0"], "robust": ["run=/run"]}
    config = OmegaConf.to_container(
        compose(verb, f"{group}={choice}", *extra.get(choice, [])), resolve=False
    )
    assert isinstance(config, dict)
    for node in targets(config):
        module, _, name = node["_target_"].rpartition(".")
        function = getattr(importlib.import_module(module), name)
        loading = LOADER_KEYS if node is config.get("data") else ()
        arguments = {
            key: value
            for key, value in node.items()
            if not key.startswith("_") and key not in loading
        }
        inspect.signature(function).bind_partial(**arguments)


def test_the_keys_of_the_loaders_are_those_of_their_file_and_of_the_data_module() -> None:
    from fmsd.engine.datamodule import DataModule

    assert tuple(yaml.safe_load((CONF / "loader" / "default.yaml").read_text())) == LOADER_KEYS
    parameters = inspect.signature(DataModule).parameters
    assert {*LOADER_KEYS} == parameters.keys() - {"selection", "watch_tests"}


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_a_configuration(verb: str) -> None:
    needed = {name: ["data=synthetic"] for name in ("doctor", "extract", "index", "pack", "score")}
    assert compose(verb, *needed.get(verb, [])) is not None


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_opens_with_claim_and_command(name: str) -> None:
    text = (ROOT / "experiments" / f"{name}.yaml").read_text()
    assert "# Claim: " in text
    assert "# Command: " in text
    if verb_of(name) == "merge":
        config = compose("merge", f"experiments={name}", "specialists=/runs", "seed=0")
        build(config.merger)
        assert list(config.experts) == [
            "/runs/seed0/faceswap",
            "/runs/seed0/stylegan2",
            "/runs/seed0/migan",
        ]
        return
    if verb_of(name) == "evaluate":
        config = compose("evaluate", f"experiments={name}", "run=/run")
        assert len(parse_corruptions(list(config.corrupt), list(config.severities))) > 1
        return
    config = compose("train", f"experiments={name}", "data.root=/data")
    for part in ("backbone", "method", "wrapper", "optimizer", "schedule", "trainer", "data"):
        build_part(config, part)


TABLES = yaml.safe_load((CONF / "reproduce.yaml").read_text())
STEPS = sorted(
    {
        (name, step)
        for name, steps in TABLES["steps"].items()
        for step in steps
        if step.startswith("train")
    }
)
ELSEWHERE = {"ff++": ("Deepfakes", "NeuralTextures"), "faces": ("faceswap", "stylegan2", "migan")}


@pytest.mark.slow
@pytest.mark.parametrize(("data", "forgeries"), list(ELSEWHERE.items()), ids=list(ELSEWHERE))
@pytest.mark.parametrize(
    ("name", "step"), STEPS, ids=[f"{name}{place}" for place, (name, _) in enumerate(STEPS)]
)
def test_every_training_behind_a_table_composes_on_the_faces_and_on_the_full_protocol(
    name: str, step: str, data: str, forgeries: tuple[str, ...]
) -> None:
    words = step.format(
        out="out",
        seed="0",
        forgeries=",".join(forgeries),
        forgery=forgeries[-1],
        first=forgeries[0],
    ).split()[2:]
    experiment = next(word.partition("=")[2] for word in words if word.startswith("experiments="))
    swept = yaml.safe_load((ROOT / "experiments" / f"{experiment}.yaml").read_text())["hydra"][
        "sweeper"
    ]["params"]
    given = {
        word.partition("=")[0]: word
        for word in [*(f"{key}={value}" for key, value in swept.items()), *words]
    }
    overrides = OverridesParser.create().parse_overrides(
        [word for key, word in given.items() if not key.startswith("hydra.")]
    )
    for job in BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]:
        config = compose(
            "train", *job, *(["data=ff++", "backbone=clip_vit_l14"] if data == "ff++" else [])
        )
        for part in ("backbone", "method", "wrapper", "data"):
            assert build_part(config, part) is not None
        assert (config.backbone.size, config.data.name) == (
            (224, "ff++") if data == "ff++" else (64, "faces")
        )
        learned = {
            "align": [other for other in forgeries if other != config.get("unseen")],
            "merge": [config.get("family")],
        }.get(name)
        assert config.data.train_forgeries == (None if config.get("family") == "joint" else learned)


def test_only_a_forgery_that_is_there_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["train", "experiments=align", "hydra.mode=RUN", "forgeries=[a,c]", "unseen=b"]) == 2
    )
    assert "b is none of a, c; choose one of these" in capsys.readouterr().err


def test_comments_are_at_most_100_columns_wide() -> None:
    """Values may be wider: YAML cannot break an interpolation."""
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in (CONF, ROOT / "experiments")
        for path in sorted(folder.rglob("*.yaml"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "#" in line and len(line) > 100
    ]
    assert wide == []


def test_the_parts_that_training_takes_are_factories() -> None:
    config = compose("train")
    for part in ("backbone", "method", "optimizer", "schedule", "trainer"):
        assert isinstance(build_part(config, part), functools.partial)


def test_the_embedded_data_brings_its_backbone_unless_another_is_chosen() -> None:
    assert compose("train", "data=synthetic").backbone.weights == "package:demo_vit.safetensors"
    assert compose("train", "data=synthetic", "backbone=vit_tiny").backbone.name.startswith(
        "vit_tiny"
    )
    assert (
        compose("train", "data=ff++").backbone.name == "vit_large_patch14_clip_quickgelu_224.openai"
    )
    assert compose("train", "data=ffpp").data == compose("train", "data=ff++").data


def test_deepfakebench_s_folder_serves_the_datasets_whose_file_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dataset_json").mkdir()
    (tmp_path / "dataset_json" / "Celeb-DF-v2.json").touch()
    monkeypatch.setenv("FMSD_DEEPFAKEBENCH", str(tmp_path))
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(
            "train",
            [
                "data=ff++",
                "data.root=/ff",
                "data.test=[ff++,celebdf_v2,dfdc]",
                "data.roots.uadfv=/uadfv",
            ],
        )
        add_test_sources(config.data)
    assert (config.data.roots.celebdf_v2, config.data.roots.dfdc, config.data.roots.uadfv) == (
        str(tmp_path),
        None,
        "/uadfv",
    )


def test_each_method_brings_its_learning_rate_and_the_command_line_wins() -> None:
    assert (
        compose("train", "method=full").optimizer.lr < compose("train", "method=fmsd").optimizer.lr
    )
    assert compose("train", "method=full", "optimizer.lr=0.5").optimizer.lr == 0.5


def learning(config: Any) -> tuple[Any, ...]:
    """How a job's optimizer steps."""
    optimizer, schedule = (
        config[part]["_target_"].rpartition(".")[2] for part in ("optimizer", "schedule")
    )
    return (
        optimizer,
        config.optimizer.lr,
        schedule,
        config.learner.weight_decay,
        config.learner.decay,
    )


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        ([], False),
        (["data=synthetic"], False),  # it brings a backbone
        (["data=folder", "trainer=smoke"], False),
        (["backbone=demo_vit"], True),
        (["data=synthetic", "backbone=demo_vit"], True),
        (["backbone=demo_vit", "backbone.size=96"], True),
    ],
)
def test_a_merge_takes_the_backbone_of_its_runs_unless_the_command_line_names_one(
    overrides: list[str], chosen: bool
) -> None:
    compose("merge", "experts=[a,b]", *overrides)
    assert is_backbone_chosen(overrides) is chosen


def test_the_trainer_of_a_merge_of_files_is_that_of_a_training() -> None:
    compose("merge", "experts=[a,b]")
    assert settings_of_experts([], [])["trainer"] == compose("train").trainer


def test_effort_learns_as_it_was_released_and_whatever_the_command_line_says_wins() -> None:
    whole = compose("train", "method=effort", "data=ff++")
    assert learning(whole) == ("Adam", 2e-4, "constant", 5e-4, "all")
    assert (
        whole.data.train_frames,
        whole.data.frames,
        whole.data.augment,
        whole.data.batch_size,
    ) == (8, 32, "effort", 32)
    assert (
        compose(
            "train", "method=effort", "data=ff++", "data.augment=none", "data.train_frames=4"
        ).data.train_frames
        == 4
    )
    words = (
        "optimizer=adamw",
        "optimizer.lr=0.1",
        "schedule=cosine",
        "learner.weight_decay=0",
        "learner.decay=matrices",
    )
    assert learning(compose("train", *words, "method=effort")) == (
        "AdamW",
        0.1,
        "cosine",
        0,
        "matrices",
    )
    assert learning(compose("train", "method=gend")) == ("AdamW", 3e-4, "cosine", 0, "matrices")
    assert learning(compose("train", "method=bias_consist")) == (
        "Adam", 1e-4, "cosine", 1e-4, "all",
    )  # fmt: skip
    for method in {*METHODS} - {"effort", "gend", "bias_consist"}:
        assert learning(compose("train", f"method={method}"))[2:] == ("cosine", 0.01, "matrices")


FACES = {
    "probe": 3e-3,
    "norm": 1e-3,
    "bitfit": 1e-3,
    "gend": 1e-3,
    "bias_consist": 1e-3,
    "lora": 1e-3,
    "effort": 3e-3,
    "fmsd": 3e-3,
    "masm": 3e-3,
    "full": 3e-5,
    "adapter": 2.5e-3,
    "vpt": 5e-3,
    "moe_lora": 1e-3,
    "lora_xs": 2.5e-3,
    "svf": 2.5e-3,
}
CONSTANT = FACES | {"full": 1e-5}  # of generalise, whose rate does not fall


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(CONSTANT))
def test_the_rows_of_a_table_differ_in_their_rate_alone_which_is_that_of_the_method_on_its_data(
    method: str,
) -> None:
    own = compose("train", f"method={method}").optimizer.lr
    for data, rate in (
        ("faces", CONSTANT[method]),
        ("synthetic", CONSTANT[method]),
        ("ff++", own),
        ("folder", own),
    ):
        config = compose(
            "train", "experiments=generalise", f"method={method}", f"data={data}", "data.root=/data"
        )
        assert learning(config) == ("AdamW", rate, "cosine", 0.01, "matrices")
        assert yaml.safe_load(OmegaConf.to_yaml(config, resolve=True))["optimizer"]["lr"] == rate
    words = ("optimizer=sgd", "optimizer.lr=0.5", "schedule=constant", "learner.decay=all")
    assert learning(compose("train", "experiments=generalise", f"method={method}", *words)) == (
        "SGD",
        0.5,
        "constant",
        0.01,
        "all",
    )


@pytest.mark.parametrize("method", METHODS)
def test_other_data_have_the_rate_of_the_method_whether_or_not_the_small_faces_have_one(
    method: str,
) -> None:
    own = compose("train", f"method={method}").optimizer.lr
    words = ("experiments=generalise", f"method={method}", "data=ff++", "data.root=/data")
    assert compose("train", *words).optimizer.lr == own


TRAINED = sorted(name for name in EXPERIMENTS if verb_of(name) == "train")


@pytest.mark.parametrize("name", TRAINED)
def test_every_experiment_that_trains_has_the_rates_of_its_data(name: str) -> None:
    config = compose("train", f"experiments={name}")
    method = {"mask": "fmsd", "subspaces": "fmsd", "align": "lora", "specialists": "full"}.get(
        name, "fmsd"
    )
    assert config.optimizer.lr == FACES[method]


def test_a_method_without_a_rate_in_an_experiment_is_refused_with_the_key_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(
        "_target_: fmsd.peft.probe.probe\n_partial_: true\n"
    )
    words = [
        "experiments=demo",
        "hydra.mode=RUN",
        "method=mine",
        f"hydra.run.dir={tmp_path / 'run'}",
        f"--config-dir={tmp_path}",
    ]
    assert main(["train", *words]) == 2
    assert (
        "This experiment has no learning rate for method=mine; give one with optimizer.lr=NUMBER."
        in capsys.readouterr().err
    )
    assert (
        main(
            [
                "train",
                "experiments=demo",
                "hydra.mode=RUN",
                "optimizer.lr=fast",
                f"hydra.run.dir={tmp_path / 'run'}",
            ]
        )
        == 2
    )
    assert (
        "optimizer.lr=fast is no number; give e.g. optimizer.lr=0.0006." in capsys.readouterr().err
    )


RECIPES: dict[str, dict[str, Any]] = {
    "effort": {
        "learning": ("Adam", 2e-4, "constant", 5e-4, "all"),
        "batch_size": 32,
        "train_frames": 8,
        "augment": "effort",
        "max_epochs": 10,
    },
    "norm": {
        "learning": ("AdamW", 3e-4, "cosine", 0.0, "matrices"),
        "batch_size": 128,
        "precision": "bf16-mixed",
    },
    "lora": {
        "learning": ("Adam", 1e-4, "cosine", 1e-4, "all"),
        "batch_size": 64,
        "augment": "effort",
        "max_epochs": 10,
    },
}
"""What each recipe claims beside its method."""


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "experiments" / "recipes").glob("*.yaml"))
)
def test_a_recipe_is_what_it_claims_names_its_source_and_what_it_leaves_out(name: str) -> None:
    text = (ROOT / "experiments" / "recipes" / f"{name}.yaml").read_text()
    assert all(f"\n# {word}: " in text for word in ("Source", "Not as there", "Command"))
    (command,) = (
        line.partition(": ")[2] for line in text.splitlines() if line.startswith("# Command: ")
    )
    config = compose("train", *command.split()[2:])
    for part in ("backbone", "method", "wrapper", "optimizer", "schedule", "trainer", "data"):
        assert build_part(config, part) is not None
    claims = dict(RECIPES[name])
    assert (
        config.data.name,
        config.data.frames,
        config.backbone.size,
        config.wrapper["_target_"],
    ) == ("ff++", 32, 224, "fmsd.optim.erm.ERM")
    assert learning(config) == claims.pop("learning")
    assert {key: config.trainer.get(key, config.data.get(key)) for key in claims} == claims
    if name == "norm":
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=config.optimizer.lr)
        schedule = build(config.schedule)(optimizer, 100)
        for _ in range(99):
            optimizer.step()
            schedule.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6, rel=0.1)
    assert (
        compose(
            "train", f"experiments=recipes/{name}", "data=celebdf_v2", "optimizer.lr=1"
        ).optimizer.lr
        == 1
    )


def test_a_recipe_that_is_not_there_is_answered_with_those_that_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "experiments=recipes/efort"]) == 2
    said = capsys.readouterr().err
    assert (
        "There is no experiments=recipes/efort (did you mean experiments=recipes/effort?); choose "
        "one of align, demo, " in said
    )
    assert main(["train", "--help", "experiments"]) == 0
    assert "recipes/effort" in capsys.readouterr().out


def test_targets_that_are_not_there_are_refused_and_others_may_lie_anywhere() -> None:
    for target in ("os.sytem", "no_such_package.x", "fmsd.peft.mask.nothing", "x", "", 3):
        with pytest.raises(
            InputError, match=rf"_target_ '?{target}'? cannot be imported.*PYTHONPATH"
        ):
            check_targets({"a": [{"_target_": target}]})
        with pytest.raises(InputError, match="cannot be imported"):
            build(OmegaConf.create({"_target_": target, "x": 1}))
    assert build(OmegaConf.create({"_target_": "collections.Counter", "a": 2})) == {"a": 2}


MISTYPED = {
    "head=true": r"head=true is no setting: head has normalise; give e\.g\. head\.normalise=VALUE",
    "head.normalise=1": r"head\.normalise=1 is none of false, true and feature; "
    r"give e\.g\. head\.normalise=feature",
    "learner=adam": r"learner=adam is no setting: learner has weight_decay, decay, .*; "
    r"give e\.g\. learner\.weight_decay=VALUE",
    "learner=null": r"learner=null is no setting",
    "learner.compiled=2": r"learner\.compiled=2 is neither true nor false",
    "learner.weight_decay=-1": r"learner\.weight_decay=-1 is out of range; "
    r"give at least 0",
    "method.mask=none": r"method\.mask=none is no setting: method\.mask has .*bias",
    "method.penalties=false": r"method\.penalties=false is no setting",
    "method.directions=two": r"method\.directions=two is no whole number; "
    r"give e\.g\. method\.directions=1, or null",
    "method.subspaces=1.5": r"method\.subspaces=1\.5 is no whole number",
    "method.working_scale=1": r"method\.working_scale=1 is neither true nor false",
    "data.train_frames=1.5": r"data\.train_frames=1\.5 is no whole number",
    "data.train_frames=true": r"data\.train_frames=true is no whole number",
    "data.frames=two": r"data\.frames=two is no whole number",
    "schedule.floor=2": r"schedule\.floor=2 is no share; give a number from 0 to 1",
    "wrapper=sam wrapper.adaptive=2": r"wrapper\.adaptive=2 is neither true nor false",
    "method=masm method.every=0": r"method\.every=0 is out of range; give at least 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("words", MISTYPED)
def test_values_of_another_type_are_refused_by_their_key(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = (
        "data=synthetic",
        "backbone=demo_vit",
        "trainer=smoke",
        "data.frames=1",
        "data.workers=0",
        "method.mask.bias=none",
    )
    plain = [
        word
        for word in smoke
        if not (word.startswith("method.mask") and ("masm" in words or "mask=" in words))
    ]
    assert main(["train", *plain, *words.split(), f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert re.search(MISTYPED[words], capsys.readouterr().err)


def test_nothing_and_whole_numbers_are_taken_where_the_annotation_has_them() -> None:
    for words in (
        "method.directions=null",
        "method.mask=null",
        "method.penalties=null",
        "method.mask.threshold=mean",
        "method.mask.threshold=1",
    ):
        build(compose("train", words).method)
    build(compose("train", "wrapper=roga", "wrapper.gamma=2", "wrapper.rho=1").wrapper)


def test_arguments_that_do_not_fit_are_refused() -> None:
    config = compose("train", "+method.rnk=3")
    with pytest.raises(
        InputError,
        match=r"method\.rnk: fmsd\.peft\.fmsd\.fmsd takes no such argument; "
        r"leave it out, or where a file sets it add '~method\.rnk'",
    ):
        build(config.method)
    config = compose("train", "experiments=recipes/norm", "schedule=constant")
    with pytest.raises(
        InputError,
        match=r"schedule\.warmup, schedule\.floor: .*constant takes no such argument; "
        r".* add '~schedule\.warmup' '~schedule\.floor'",
    ):
        build(config.schedule)
    config = compose("train", "data=folder", "data.root=/data", "+data.source.lay_out=x")
    with pytest.raises(InputError, match=r"Selection does not fit it.*lay_out"):
        build_data(config.data)


@pytest.mark.parametrize("choice", [choice for group, choice in GROUPS if group == "backbone"])
def test_every_backbone_can_be_built_and_its_weights_are_known_to_timm(choice: str) -> None:
    config = compose("train", f"backbone={choice}", "backbone.pretrained=false").backbone
    with torch.device("meta"):
        model = detector(
            **{
                "weights": None,
                **{
                    key: value
                    for key, value in config.items()
                    if key[0] != "_" and key != "weights"
                },
            }
        )
    assert model(torch.empty(1, 3, config.size, config.size, device="meta")).shape == (1,)
    assert choice == "demo_vit" or any(
        known.startswith(config.name) for known in timm.list_pretrained()
    )


def test_every_method_wrapper_and_merger_has_a_page() -> None:
    pages = {path.stem for path in Path(ROOT / "docs" / "methods").glob("*.md")}
    assert {choice for group, choice in GROUPS if group in ("method", "merger", "wrapper")} <= pages


def test_slurm_starts_a_task_for_every_process_of_the_trainer() -> None:
    for asked, expected in (
        ([], (1, 1, 1)),
        (["trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2"], (2, 4, 4)),
    ):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            launcher = hydra.compose(
                "train", ["hydra/launcher=slurm", *asked], return_hydra_config=True
            ).hydra.launcher
        assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == expected
        assert launcher._target_.endswith("SlurmLauncher")


def test_slurm_without_a_gpu_starts_one_task_per_job_of_an_extraction() -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [
            "data=synthetic",
            "out=/crops",
            "shard=0",
            "shards=2",
            "hydra/launcher=slurm_cpu",
        ]
        launcher = hydra.compose("extract", overrides, return_hydra_config=True).hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (1, 1, None)
    assert launcher._target_.endswith("SlurmLauncher")
    OmegaConf.to_container(launcher, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize(
    "words", [["evaluate", "run=x", "corrupt=jpeg,h264"], ["train", "data.forgeries=a,b"]]
)
def test_a_list_without_brackets_is_answered_with_the_list(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    key, _, values = words[-1].partition("=")
    assert f"give them as a list, {key}='[{values}]'" in capsys.readouterr().err


def test_recorded_results_of_the_first_version_have_the_settings_of_today(tmp_path: Path) -> None:
    table = pl.read_csv(ROOT / "experiments" / "generalise.csv").select("run", "settings").unique()
    assert table.height == 5
    for label, digest in table.rows():
        config = compose("train", "experiments=generalise", "data.root=/data", *label.split())
        (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
        settings = training_settings(Run(tmp_path), {})
        assert settings is not None
        assert settings_digest(settings) == digest, label


@pytest.mark.parametrize(
    "words", ["loss=gend", "head.normalise=feature", "method.init=pissa", "method.scaling=rslora"]
)
def test_a_choice_that_the_first_version_lacked_changes_the_settings(
    words: str, tmp_path: Path
) -> None:
    digests = []
    for more in ([], [words]):
        config = compose("train", "method=lora", "data.root=/data", *more)
        (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
        digests.append(settings_digest(training_settings(Run(tmp_path), {}) or {}))
    assert digests[0] != digests[1]


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_default_test_needs_a_choice_that_only_its_user_can_make(path: Path) -> None:
    """Real videos that the user must name cannot be given to a test by its root alone."""
    data = yaml.safe_load(path.read_text())
    for name in data.get("test", []):
        about = CONF / "data" / f"{name}.yaml"
        source = yaml.safe_load(about.read_text()).get("source", {}) if about.exists() else {}
        assert name == data["name"] or "reals" not in source
