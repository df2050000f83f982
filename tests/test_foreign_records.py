"""Records, names, links and loggers of a run from elsewhere."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from fmsd.cli.build import logger_factories
from fmsd.cli.loaded_runs import relocate_embedded_data
from fmsd.cli.main import main
from fmsd.cli.run_loggers import foreign_destinations, trusted_loggers
from fmsd.data.synthetic.plan import DRAWING_VERSION
from fmsd.package_files import CONF
from tests.conftest import ROOT
from tests.foreign_runs import folder, foreign_config, launch, settings


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    return foreign_config()


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
        (None, "is damaged: 'merger' should be a valid dictionary"),
    ):
        record = {"base": {"hash": ""}, "experts": [], "search": None, "layers": []}
        (run / "merge.json").write_text(json.dumps(record | {"merger": merger}))
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


@pytest.mark.parametrize("record", [{}, {"seed": "abc"}, {"seed": 1.5}])
def test_a_record_that_lacks_what_a_run_has_is_named(
    record: dict[str, Any], trained: dict[str, Any], tmp_path: Path, capsys
) -> None:
    run = folder(tmp_path / "run", trained)
    (run / "run.json").write_text(json.dumps(record))
    for words in (["evaluate"], ["explain"], ["fold", f"out={tmp_path / 'x.safetensors'}"]):
        assert main([words[0], f"run={run}", *words[1:]]) == 2
        assert re.search(
            r"run\.json is damaged: (it lacks 'seed'|'seed' should be .* integer); put it back",
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
    (tmp_path / "drawn" / f"synthetic-v{DRAWING_VERSION}").mkdir(parents=True)
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
