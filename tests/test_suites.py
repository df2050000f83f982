"""Suites: sets of test datasets with a name, in every verb that tests, with any data."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from fmsd.cli.build import build_selection
from fmsd.cli.conf_files import choices, groups
from fmsd.cli.data_config import add_test_sources
from fmsd.cli.loaded_runs import with_overrides
from fmsd.cli.main import main
from fmsd.cli.suites import suites
from fmsd.cli.verbs import VERBS
from fmsd.package_files import CONF

VERBS_WITH_SUITES = [verb for verb in VERBS if "suite" in groups(verb)]

NEEDED = {
    "deepfakebench": ["data.train=[a]", "data.source.file=x.json"],
    "folder": ["data.train=[a]"],
    "table": ["data.train=[a]"],
}
"""Overrides without which a data file is not complete."""


@pytest.fixture(autouse=True)
def _no_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FMSD_ROOTS", raising=False)


def composed(*overrides: str) -> Any:
    """The data of a training, with the sources of its test datasets."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", list(overrides))
        add_test_sources(config.data)
        return config.data


def test_the_verbs_that_test_have_suites() -> None:
    assert {"train", "evaluate", "merge", "score", "import"} <= set(VERBS_WITH_SUITES)


@pytest.mark.parametrize("suite", choices("suite"))
@pytest.mark.parametrize("verb", VERBS_WITH_SUITES)
def test_every_suite_composes_with_every_verb(verb: str, suite: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        given = ["data=synthetic"] if verb in ("score", "import") else []  # which need data
        data = hydra.compose(verb, [*given, f"suite={suite}"]).data
    assert data.suite == suite
    assert "test" in data


@pytest.mark.parametrize("suite", suites())
def test_the_datasets_of_a_suite_are_those_of_the_data_files(suite: str) -> None:
    datasets = suites()[suite]
    assert set(datasets) <= set(choices("data"))
    assert len(set(datasets)) == len(datasets)
    data = composed("data=ff++", f"suite={suite}")
    assert list(data.test) == datasets
    assert set(datasets) - {"ff++"} <= set(data.others)
    assert build_selection(data).suite == suite


@pytest.mark.parametrize("name", choices("data"))
def test_suites_compose_with_every_data(name: str) -> None:
    words = [f"data={name}", *NEEDED.get(name, [])]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        data = hydra.compose("train", [*words, "suite=cross_dataset"]).data
        assert list(data.test) == suites()["cross_dataset"]
        config = hydra.compose("train", [*words, "suite=in_dataset"])
        assert list(config.data.test) == list(config.data.train)
        add_test_sources(config.data)


def test_without_a_suite_the_configuration_is_as_before() -> None:
    assert "suite" not in composed("data=ff++")


def test_a_protocol_is_chosen_beside_a_suite_and_an_experiment_s_tests_are_replaced() -> None:
    data = composed("data=ff++", "protocol=dfb_compat", "suite=dfb")
    assert (data.protocol, list(data.test)) == ("dfb_compat", suites()["dfb"])
    data = composed("experiments=generalise", "suite=df40")
    assert list(data.test) == ["df40"]


# ---- runs


OWN = "# @package data\nsuite: mine\ntest: [synthetic, synthetic_shift, dfd]\n"
"""A suite of which one dataset lies elsewhere."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite of its own and a run that was trained with it."""
    folder = tmp_path_factory.mktemp("suites")
    (folder / "own" / "suite").mkdir(parents=True)
    (folder / "own" / "suite" / "mine.yaml").write_text(OWN)
    assert main([*train(folder), f"hydra.run.dir={folder / 'run'}"]) == 0
    return folder


def train(folder: Path) -> list[str]:
    return [
        "train", f"--config-dir={folder / 'own'}", "suite=mine", "trainer=smoke",
        "backbone=demo_vit", "method=probe", "trainer.accelerator=cpu", "data.workers=0",
    ]  # fmt: skip


def evaluated(folder: Path, name: str, *words: str) -> dict[str, Any]:
    """The record of an evaluation of the run."""
    out = folder / name
    command = ["evaluate", f"run={folder / 'run'}", f"hydra.run.dir={out}"]
    assert main([*command, f"--config-dir={folder / 'own'}", *words]) == 0
    return json.loads((out / "run.json").read_text())


@pytest.fixture(autouse=True)
def _quiet(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    capsys.readouterr()


def test_a_run_records_its_suite_and_what_was_left_out(folder: Path) -> None:
    record = json.loads((folder / "run" / "run.json").read_text())
    assert (record["suite"], record["skipped"]) == ("mine", ["dfd"])
    assert set(record["manifests"]["test"]) == {"synthetic", "synthetic_shift"}
    assert record["choices"]["suite"] == "mine"


def test_the_stamps_of_a_dataset_do_not_depend_on_the_suite(folder: Path) -> None:
    trained = json.loads((folder / "run" / "run.json").read_text())["stamps"]
    record = evaluated(folder, "in", "suite=in_dataset")
    assert (record["suite"], record["skipped"]) == ("in_dataset", [])
    assert record["stamps"].keys() < trained.keys()


def test_an_evaluation_has_the_run_s_suite_and_tells_that_it_is_incomplete(
    folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = tmp_path / "config" / "fmsd" / "roots.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("dfd: /gone\n")
    record = evaluated(folder, "same")
    assert (record["suite"], record["skipped"]) == ("mine", ["dfd"])
    assert f"/gone, which dfd in {file} gives as the root of dfd, is no folder." in caplog.messages
    assert "The test dataset dfd is skipped: it has no root" in caplog.text
    assert "The suite mine is incomplete: 2 of its 3 datasets are tested." in caplog.text


def test_an_evaluation_on_other_data_has_no_suite(folder: Path) -> None:
    record = evaluated(folder, "other", "data=synthetic", "data.test=[synthetic_shift]")
    assert (record["suite"], record["skipped"]) == (None, [])
    assert "suite" not in OmegaConf.load(folder / "other" / "config.yaml").data


def test_other_test_datasets_of_a_file_end_the_suite_of_the_run() -> None:
    """As those of an experiment of one's own do; the command line itself gives them with data=."""
    run = OmegaConf.create(
        {"backbone": {}, "data": dict(ROOTS, suite="mine", test=["a", "b"]), "trainer": {}}
    )
    given = {"base": None, "trainer": None, "data": {"test": ["a"]}}
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        data = with_overrides(run, OmegaConf.create(given)).data
        assert ("suite" in data, list(data.test)) == (False, ["a"])
        given["data"] |= {"suite": "small"}
        assert with_overrides(run, OmegaConf.create(given)).data.suite == "small"


ROOTS = {
    "name": "a", "root": None, "manifest": None, "roots": {}, "others": {}, "train": ["a"],
}  # fmt: skip
"""What the data of a run holds beside its tests."""


def test_an_incomplete_suite_is_refused_before_training_if_wanted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*train(folder), "data.absent=refuse", f"hydra.run.dir={folder / 'refused'}"]
    assert main(words) == 2
    assert not (folder / "refused").exists()
    assert (
        "The roots of the test datasets dfd are not given; give data.roots.dfd=PATH, or skip them "
        "by data.absent=skip." in capsys.readouterr().err
    )
    assert main([*words, "data.absent=perhaps"]) == 2
    assert "data.absent=perhaps" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["data.test=[synthetic]", "++data.test=[synthetic]"])
def test_a_suite_beside_test_datasets_is_refused(
    folder: Path, override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in (["train"], ["evaluate", f"run={folder / 'run'}", "data=synthetic"]):
        assert main([*verb, "suite=in_dataset", override]) == 2
        assert (
            "suite=in_dataset names the test datasets, and so does data.test; leave one of them "
            "out." in capsys.readouterr().err
        )


@pytest.mark.parametrize(
    "text",
    [
        "test: [synthetic]\n",  # not below data
        "# @package data\ntest: [synthetic]\n",
        "# @package data\nsuite: other\ntest: [synthetic]\n",
    ],
)
def test_a_suite_whose_file_does_not_name_it_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "bad.yaml").write_text(text)
    out = f"hydra.run.dir={tmp_path / 'run'}"
    assert main(["train", f"--config-dir={tmp_path}", "suite=bad", out]) == 2
    told = capsys.readouterr().err
    assert "The file of suite=bad does not set a suite of this name; write '# @package" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", '"a\\e[31m"', "[a, b]"])
def test_the_name_of_a_suite_is_a_plain_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "bad.yaml").write_text(
        f"# @package data\nsuite: {name}\ntest: [synthetic]\n"
    )
    assert main(["train", f"--config-dir={tmp_path}", "suite=bad"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_suite_that_does_not_exist_is_refused_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "suite=cross_datasets"]) == 2
    assert "cross_dataset" in capsys.readouterr().err.replace("cross_datasets", "")


def test_without_data_a_suite_would_have_no_effect(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path in weights:
        shutil.copy(CONF.parent / "fmsd" / "models" / "demo_vit.safetensors", path)
    words = [f"experts=[{weights[0]},{weights[1]}]", "backbone=demo_vit", "suite=df40"]
    assert main(["merge", *words, f"out={tmp_path / 'merged'}"]) == 2
    assert "suite=df40 would have no effect: there is no data" in capsys.readouterr().err


def test_a_report_shows_which_datasets_of_a_suite_are_missing(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(folder / "run", tmp_path / "runs" / "run")
    words = ["report", f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'report'}", "resamples=0"]
    assert main(words) == 0
    assert "The suite mine is incomplete for " in caplog.text
    assert "dfd was not tested." in caplog.text
    page = (tmp_path / "report" / "report.html").read_text()
    section = page.partition(">Suites<")[2]
    assert "synthetic, synthetic_shift" in section
    assert ">dfd<" in section


# ---- where the datasets are


def test_the_roots_show_which_suites_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for name in suites()["cross_manipulation"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        monkeypatch.setenv(f"FMSD_{name.upper()}", str(tmp_path / name))
    assert main(["roots", "--json"]) == 0
    rows = {row["suite"]: row for row in json.loads(capsys.readouterr().out)["tables"]["suites"]}
    assert set(rows) == set(suites()) == set(choices("suite")) - {"in_dataset"}
    assert rows["cross_manipulation"]["missing"] == rows["df40"]["missing"] == []
    assert "celebdf_v2" in rows["dfb"]["missing"]
    assert "deeperforensics" not in rows["dfb"]["missing"]
    assert main(["roots"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "cross_manipulation │ 3 of 3 │ -" in told
