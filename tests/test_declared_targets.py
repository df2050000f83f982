"""The targets that packaged files name, and the runs that they describe."""

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from fmsd.cli.conf_files import walk
from fmsd.cli.declared_targets import GROUPS, declared_key_path, declared_targets
from fmsd.cli.trust import check_loaded, load_run_config
from fmsd.package_files import CONF
from tests.foreign_runs import folder, settings


def test_what_every_packaged_file_names_may_be_loaded_where_it_names_it() -> None:
    for path in sorted(CONF.glob("*/*.yaml")):
        for place, node in walk(yaml.safe_load(path.read_text())):
            if isinstance(node, dict) and "_target_" in node and path.parent.name in GROUPS:
                known = {
                    target: where
                    for where, targets in declared_targets().items()
                    for target in targets
                    if where[0] == path.parent.name
                }
                assert node["_target_"] in known, (path, place)


def test_the_declared_targets_are_networks_data_and_ways_to_compute() -> None:
    targets = {target for known in declared_targets().values() for target in known}
    assert {place[0] for place in declared_targets()} == set(GROUPS)
    for key_path, target, partial in (
        (("backbone",), "fmsd.models.detector.detector", True),
        (("data",), "fmsd.data.selection.Selection", None),
        (("trainer", "strategy"), "fmsd.engine.distributed.UnwrappedDDPStrategy", None),
    ):
        known = declared_targets()[key_path]
        assert {name: known[name].partial for name in known} == {target: partial}
        assert known[target].plugin is None
    assert "fmsd.data.sources.celebdf.scan" in declared_targets()["data", "source", "tree"]
    assert declared_key_path(("data", "others", "far", "tree")) == ("data", "source", "tree")
    homes = {target.rpartition(".")[0] for target in targets}
    kinds = (
        r"fmsd\.(peft|losses|merge|optim|data\.sources)\.\w+|fmsd\.tracking\.(wandb|mlflow|tensorboard)"
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
