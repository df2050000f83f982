"""Names on the command line: odd ones, single ones, numbers."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fmsd.cli.build import build_selection
from fmsd.data import name_overrides
from fmsd.data.selected_frames import list_frames, load_test_datasets, load_training_splits
from fmsd.data.selection import Selection
from fmsd.errors import InputError
from tests.conftest import grow_tree
from tests.indexing import SPLITS, domains, refusal, run

ODD = [
    "real",
    "real ",
    "0",
    "01",
    "-1",
    "1_000",
    "1e5",
    "1.0",
    "true",
    "null",
    "nan",
    "0_real",
    "it's",
    'say "x"',
    "back\\",
    'q\\"',
    "ä",
    "a b",
]
ODD += [
    "${x}",
    "$x",
    "a,b",
    "[x]",
    "{x}",
    "(x)",
    "x#",
    "v1.0",
    "a:b",
    "a=b",
    "Celeb-real",
    "日本",
    "%s",
    "a+b",
    "@x",
    "a|b",
]


@pytest.mark.parametrize("odd", ODD)
def test_a_remedy_writes_a_name_as_the_command_line_reads_it(odd: str) -> None:
    def parsed(word: str) -> Any:
        (one,) = shlex.split(word)
        return OmegaConf.create({"key": OverridesParser.create().parse_override(one).value()}).key

    assert name_overrides.as_names(
        list(parsed(name_overrides.list_override("key", [odd, "other"]))), "key"
    ) == [
        odd,
        "other",
    ]
    if word := name_overrides.mapping_override("key", {odd: 1}):
        assert {
            name_overrides.as_name(key, "key"): value for key, value in parsed(word).items()
        } == {odd: 1}
    else:
        assert not re.fullmatch(r"[A-Za-z]+", odd) or odd in ("true", "null", "nan")


@pytest.mark.parametrize("lost", [1.0, True, None, ["x"]])
def test_what_has_lost_its_spelling_is_no_name(lost: object) -> None:
    with pytest.raises(
        InputError,
        match=r"data\.test gives .* where a name is wanted; "
        r"put the name in double quotes.*'data\.test=\[\"NAME\"\]'",
    ):
        name_overrides.as_names(["a", lost], "data.test")
    with pytest.raises(InputError, match=r"where a name is wanted"):
        name_overrides.as_name(lost, "data.left_out")


def test_one_name_is_a_list_of_one_and_never_its_letters() -> None:
    assert name_overrides.as_names("real", "k") == ["real"]
    assert name_overrides.as_names(0, "k") == ["0"]


def test_numbers_on_the_command_line_name_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = grow_tree(tmp_path / "root", splits=("2018", "2019", "7"), domains=("0", "1", "2"))
    words = [
        "data=folder",
        f"data.root={root}",
        "+data.source.splits={2018: train, 2019: val, 7: test}",
    ]
    sentence = refusal(capsys, *words, out=tmp_path / "o.parquet")
    assert "None of the folders '0', '1', '2' holds real images" in sentence
    for real in ("data.source.real=[0]", "data.source.real=0", 'data.source.real=["0"]'):
        assert domains(run(*words, real, out=tmp_path / "o.parquet")) == {"real": 0, "1": 1, "2": 1}


def test_numbers_name_datasets_forgeries_and_compressions(tmp_path: Path) -> None:
    root = grow_tree(tmp_path / "5", domains=("real", "1", "2"), videos=4).parent

    def selection(**changes: Any) -> Selection:
        source = {
            "_target_": "fmsd.data.sources.folder.scan",
            "_partial_": True,
            "dataset": "x",
            "layout": "{dataset}/{split}/{domain}/{video}",
            "splits": SPLITS,
            "real": ["real"],
        }
        names = {"name": 5, "train": [5], "test": 5} | changes
        target = {"_target_": "fmsd.data.selection.Selection", "root": str(root), "source": source}
        return build_selection(OmegaConf.create(target | names))

    data = selection(forgeries=[1, 2], train_forgeries=[2, 1], left_out=1)
    listed = list_frames(data)
    splits, tests = load_training_splits(data, listed), load_test_datasets(data, listed)
    assert set(splits.train.table["domain"]) == {"real", "2"}
    assert set(splits.validation.table["domain"]) == {"real", "1"}
    assert list(tests) == ["5"]
    assert set(tests["5"].table["domain"]) == {"real", "1", "2"}
    with pytest.raises(InputError, match=r"data\.forgeries names 3, but data=5 holds 1, 2"):
        list_frames(selection(forgeries=[3]))
    with pytest.raises(InputError, match=r"data\.train names ff, but"):
        load_training_splits(selection(train="ff"), listed)
