"""Packages that add choices: the example, installed by pip, and faulty ones."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmsd.cli.conf_files import choices
from fmsd.cli.declared_targets import declared_targets
from fmsd.cli.help import help_page
from fmsd.cli.main import main
from fmsd.cli.trust import check_loaded
from fmsd.errors import InputError
from fmsd.peft.layer_kinds import check_foldable, layer_class
from fmsd.plugins import plugin_versions, plugins
from tests.foreign_runs import foreign_config
from tests.installed import on_path, write_package
from tests.surroundings import python_path


def fault(call: Any, *arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        call(*arguments)
    return str(error.value)


# ---- what an installed plugin adds


def test_finding_a_plugin_imports_none_of_its_code(example: Path) -> None:
    program = (
        "import sys; from fmsd.plugins import plugins; (plugin,) = plugins();"
        "from fmsd.cli.declared_targets import declared_targets as declared;"
        "assert 'fmsd_example.ia3.ia3' in declared()['method',];"
        "print(plugin.name, plugin.package, plugin, 'fmsd_example' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": python_path(example)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "example fmsd_example fmsd-example 0.1.0 False\n"


@pytest.mark.usefixtures("installed")
def test_choices_and_their_help_name_the_package() -> None:
    assert "ia3" in choices("method")
    assert "lora" in choices("method")
    (line,) = (line for line in help_page("train", ["method"]).splitlines() if " ia3 " in line)
    page = " ".join(help_page("train", ["method"]).split())
    assert "(IA)3 (Liu et al., NeurIPS 2022" in line
    assert "From fmsd-example 0.1.0." in page
    keys = help_page("train", ["data=clips"])
    assert "data.name=clips" in keys
    assert "data.val_fraction=0.1" in keys  # of fmsd's file, on which the plugin's is based


@pytest.mark.usefixtures("installed")
def test_a_configuration_is_composed_of_files_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    choice = ["method=ia3", "wrapper=gradient_norm", "data=clips", "data.root=/nowhere"]
    assert main(["train", "--cfg", "job", *choice]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["method"]["_target_"] == "fmsd_example.ia3.ia3"
    assert config["wrapper"]["weight"] == 0.02
    assert config["data"]["source"]["_target_"] == "fmsd_example.clips.scan"
    assert config["data"]["val_fraction"] == 0.1
    assert config["optimizer"]["lr"] == 3e-3
    assert main(["train", *choice, "wrapper.rho=far"]) == 2
    assert "wrapper.rho=far is no number" in capsys.readouterr().err
    assert main(["train", "method=iaa3", "data=clips"]) == 2
    assert "did you mean method=ia3" in capsys.readouterr().err


def test_without_the_plugin_its_choices_do_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "method=ia3", "data=synthetic"]) == 2
    assert "There is no method=ia3" in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_versions_of_plugins_are_recorded(tmp_path: Path) -> None:
    layers = "[fmsd.layers]\na = layered:A\n"
    write_package(tmp_path, "layered", {}, layers, version="2.0")
    with on_path(tmp_path):
        assert plugin_versions() == {"fmsd-example": "0.1.0", "layered": "2.0"}


# ---- what a loaded run may build


@pytest.mark.usefixtures("installed")
def test_a_loaded_run_may_build_what_an_installed_plugin_declares(tmp_path: Path) -> None:
    config = foreign_config()
    config["method"] = {
        "_target_": "fmsd_example.ia3.ia3",
        "_partial_": True,
        "patterns": ["mlp"],
    }
    config["wrapper"] = {
        "_target_": "fmsd_example.gradient_norm.GradientNorm",
        "rho": 0.1,
        "weight": 0.1,
    }
    config["data"]["source"] = {
        "_target_": "fmsd_example.clips.scan",
        "_partial_": True,
        "dataset": "clips",
        "split": "val",
    }
    check_loaded(config, tmp_path)
    config["wrapper"]["rhos"] = 0.1
    assert "does not fit fmsd_example.gradient_norm.GradientNorm" in fault(
        check_loaded, config, tmp_path
    )


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("wrapper", "fmsd_example.ia3.ia3"),
        ("method", "fmsd_example.ia3.probe"),
        ("method", "fmsd_example.clips.read_json"),
        ("optimizer", "fmsd_example.gradient_norm.GradientNorm"),
    ],
)
def test_other_names_of_a_plugin_and_other_places_are_refused(
    group: str, target: str, tmp_path: Path
) -> None:
    config = foreign_config()
    config[group] = {"_target_": target, "_partial_": True}
    assert f"would call {target} for {group}" in fault(check_loaded, config, tmp_path)


def test_a_run_of_a_plugin_that_is_not_installed_names_all_of_it(tmp_path: Path) -> None:
    config = foreign_config()
    config["method"] = {"_target_": "mylab.tokens", "_partial_": True}
    config["wrapper"] = {"_target_": "other.signed"}
    text = fault(check_loaded, config, tmp_path / "config.yaml")
    assert "would call mylab.tokens for method and other.signed for wrapper, which" in text
    assert f"versions in {tmp_path / 'run.json'}" in text
    assert "give trust='[mylab.,other.]'" in text


FOREIGN = """
_target_: torch.optim.RAdam
_partial_: true
lr: 1.0e-3
"""


def test_of_other_packages_a_loaded_run_may_set_what_the_plugin_sets(tmp_path: Path) -> None:
    write_package(tmp_path, "rectified", {"conf/optimizer/radam.yaml": FOREIGN})
    config = foreign_config()
    config["optimizer"] = {"_target_": "torch.optim.RAdam", "_partial_": True, "lr": 0.5}
    with on_path(tmp_path):
        check_loaded(config, tmp_path)
        config["optimizer"]["eps"] = 1e-3
        assert "sets optimizer.eps" in fault(check_loaded, config, tmp_path)
    assert "would call torch.optim.RAdam" in fault(check_loaded, config, tmp_path)


def test_a_plugin_cannot_widen_what_fmsd_declares(tmp_path: Path) -> None:
    harmful = "_target_: lightning.pytorch.Trainer\n_partial_: true\ndefault_root_dir: null\n"
    write_package(tmp_path, "wide", {"conf/trainer/wide.yaml": harmful})
    config = foreign_config()
    config["trainer"]["default_root_dir"] = "/elsewhere"
    with on_path(tmp_path):
        assert declared_targets()["trainer",]["lightning.pytorch.Trainer"].plugin is None
        assert "sets trainer.default_root_dir" in fault(check_loaded, config, tmp_path)


MINE = """
_target_: nested.mine
_partial_: true
"""


def test_a_choice_in_a_folder_of_its_group_is_declared_as_well(tmp_path: Path) -> None:
    write_package(tmp_path, "nested", {"conf/wrapper/sub/mine.yaml": MINE})
    config = foreign_config()
    with on_path(tmp_path):
        assert "sub/mine" in choices("wrapper")
        assert "nested.mine" in declared_targets()["wrapper",]
        assert "nested.mine" not in declared_targets().get(("wrapper", "sub"), {})
        config["wrapper"] = {"_target_": "nested.mine", "_partial_": True}
        check_loaded(config, tmp_path, built=())


# ---- a user's own folder


@pytest.mark.parametrize("plugin", [False, True])
def test_a_file_of_config_dir_that_would_not_be_read_is_refused(
    plugin: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own" / "method"
    own.mkdir(parents=True)
    name = "plain" if plugin else "lora"
    write_package(tmp_path / "site", "other", {"conf/method/plain.yaml": MINE})
    options = ["--cfg", "job", "--config-dir", "own"]
    with on_path(tmp_path / "site"):
        (own / f"{name}.yaml").write_text(MINE)
        assert main(["train", "data=synthetic", f"method={name}", *options]) == 2
        owner = "other 1.5" if plugin else "fmsd"
        assert (
            f"own/method/{name}.yaml has the name of a configuration file of {owner}, which would "
            "be read in its place; give it another name." in capsys.readouterr().err
        )
        (own / f"{name}.yaml").rename(own / "mine.yaml")
        assert main(["train", "data=synthetic", "method=mine", *options]) == 0
        assert "nested.mine" in capsys.readouterr().out


# ---- the working directory


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help", "method"]])
def test_python_dash_m_imports_nothing_from_the_working_directory(
    arguments: list[str], tmp_path: Path
) -> None:
    write_package(tmp_path, "stranger", {"conf/method/strange.yaml": MINE})
    for name in ("yaml", "rich", "difflib"):
        (tmp_path / f"{name}.py").write_text("open('PWNED', 'w')")
    done = subprocess.run(
        [sys.executable, "-m", "fmsd", *arguments],
        cwd=tmp_path, env={"PYTHONPATH": python_path()}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "strange" not in done.stdout
    assert not (tmp_path / "PWNED").exists()


# ---- faulty plugins


@pytest.mark.parametrize(
    ("files", "points", "sentence"),
    [
        ({"conf/method/lora.yaml": "a: 1"}, None, "file method/lora.yaml, which fmsd has, too"),
        ({"conf/experiments/demo.yaml": "a: 1"}, None, "file experiments/demo.yaml, which fmsd"),
        ({}, None, r"names the package odd, which has no folder .*odd/conf"),
        ({}, "[fmsd.plugins]\nx = gone\n", "names the package gone, which is not installed"),
        ({}, "[fmsd.plugins]\nx = odd.inner\n", r"which has no folder .*odd/inner/conf"),
        ({}, "[fmsd.plugins]\nx = ../odd\n", "which is not installed"),
    ],
)  # fmt: skip
def test_a_faulty_plugin_is_named(
    files: dict[str, str], points: str | None, sentence: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_package(tmp_path, "odd", files, points)
    with on_path(tmp_path):
        assert main(["train", "--help"]) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error)
    assert "odd 1.5" in error
    assert "uninstall" in error


def test_two_plugins_with_one_file_are_named(tmp_path: Path) -> None:
    for package in ("first", "second"):
        write_package(tmp_path, package, {"conf/method/mine.yaml": "_target_: x.y"})
    with on_path(tmp_path):
        text = fault(plugins)
    assert text.startswith("second 1.5 brings the configuration file method/mine.yaml, which first")


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n"])
def test_a_damaged_file_of_a_plugin_is_named(text: str, tmp_path: Path) -> None:
    write_package(tmp_path, "odd", {"conf/method/mine.yaml": text})
    with on_path(tmp_path):
        assert f"The configuration file {tmp_path / 'odd/conf/method/mine.yaml'}" in fault(
            declared_targets
        )


LAYERS = {
    "twice": ("[fmsd.layers]\na = odd:A\n", "Several packages declare the layer 'a'"),
    "gone": ("[fmsd.layers]\na = odd:B\n", "cannot be imported"),
    "other": ("[fmsd.layers]\na = odd:C\n", "which is no adapted layer of that kind"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_faulty_layer_of_a_plugin_is_named(name: str, tmp_path: Path) -> None:
    points, sentence = LAYERS[name]
    code = {"__init__.py": "class A:\n    kind = 'a'\n\n\nclass C:\n    kind = 'c'\n"}
    for package in ("odd", "even") if name == "twice" else ("odd",):
        write_package(tmp_path, package, code, points)
    with on_path(tmp_path):
        assert sentence in fault(layer_class, "a", tmp_path)
    sys.modules.pop("odd", None)


def test_a_layer_of_a_plugin_may_state_why_it_does_not_fold(tmp_path: Path) -> None:
    code = """
class A:
    kind, unfoldable = "a", "method=mine bends its layers"

    def describe(self):
        return {}

    @classmethod
    def rebuild(cls, layer, description, tensors):
        return cls()
"""
    write_package(tmp_path, "bent", {"__init__.py": code}, "[fmsd.layers]\na = bent:A\n")
    with on_path(tmp_path):
        assert layer_class("a", tmp_path).kind == "a"
        sentence = fault(check_foldable, {"norm": {"kind": "a"}}, tmp_path / "run/adapter.json")
    assert f"The weights of {tmp_path / 'run'} cannot be folded, " in sentence
    assert "because method=mine bends its layers" in sentence
    sys.modules.pop("bent", None)


def test_a_kind_of_layer_that_nobody_declares_is_refused(tmp_path: Path) -> None:
    assert fault(layer_class, "no_such_kind", tmp_path / "adapter.json").startswith(
        f"{tmp_path}/adapter.json has layers of the kind 'no_such_kind', which neither fmsd nor"
    )
