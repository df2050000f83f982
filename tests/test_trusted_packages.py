"""`trust=[PACKAGE.]` adds the targets of a whole package, and of no other."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from fmsd.cli.build import build
from fmsd.cli.main import main
from fmsd.cli.trust import load_run_config
from fmsd.errors import InputError
from fmsd.runs.folder import Run
from tests.conftest import grow_tree
from tests.foreign_runs import folder, foreign_config
from tests.runs import sealed


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    return foreign_config()


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
    sealed(Run(tmp_path / "run"))
    assert main(["evaluate", *data, "run=run", "hydra.run.dir=now"]) == 0
    assert (tmp_path / "now" / "results.csv").read_text() == (
        tmp_path / "run" / "results.csv"
    ).read_text()
