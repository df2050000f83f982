"""The undocumented parts of Hydra and OmegaConf do what this package uses them for."""

from collections.abc import Iterator

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from fmsd.cli import hydra_compat
from fmsd.package_files import CONF


@pytest.fixture
def running() -> Iterator[None]:
    """Hydra with the packaged configuration files."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.1", 0.1), ("true", True), ("null", None), ("a", "a"), ("[1,b]", [1, "b"])],
)
def test_a_value_is_read_as_in_an_override(text: str, value: object) -> None:
    assert hydra_compat.parse_value(text) == value


@pytest.mark.parametrize(
    ("override", "swept"),
    [("a=1", False), ("a=1,2", True), ("a=[1,2]", False), ("a=range(1,3)", True), ("~a", False)],
)
def test_several_values_are_a_sweep(override: str, swept: bool) -> None:
    assert hydra_compat.is_swept(override) is swept


def test_an_override_that_cannot_be_parsed_is_hydra_s_error() -> None:
    with pytest.raises(HydraException):
        hydra_compat.is_swept("a=(")


@pytest.mark.usefixtures("running")
def test_a_sweep_gives_each_key_all_its_values() -> None:
    assert hydra_compat.values_by_key(
        ["b=2,1", "c=range(1,4)", "method=glob(l*)", "+d=x", "lr=interval(0,1)", "e=[1,2]"]
    ) == {
        "b": ["1", "2"],
        "c": ["1", "2", "3"],
        "method": ["lora", "lora_xs"],
        "+d": ["x"],
        "lr": ["interval(0,1)"],
        "e": ["[1,2]"],
    }


@pytest.mark.usefixtures("running")
def test_the_choices_of_a_group_are_its_files() -> None:
    assert {"fmsd", "lora"} <= {*hydra_compat.group_choices("method")}
    assert hydra_compat.group_choices("no_such_group") == []


def test_a_node_has_the_dotted_key_that_leads_to_it() -> None:
    config = OmegaConf.create({"data": {"source": {"tree": {"x": 1}}}})
    assert hydra_compat.dotted_key_of(config.data.source.tree) == "data.source.tree"
