"""`fmsd cite`: the papers behind written runs, hostile ones and trained ones."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmsd.citations import read_bibliography
from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.runs.folder import Run
from fmsd.runs.papers import CitedPapers, cited_papers
from fmsd.tasks.cite import cite
from tests.conftest import fmsd_command, fmsd_here
from tests.installed import on_path, write_package

CHOICES = {
    "method": "lora", "data": "ff++", "backbone": "clip_vit_l14", "wrapper": "sam",
    "optimizer": "adamw", "schedule": "cosine", "trainer": "default", "experiments": "generalise",
    "folder@_global_": "train",
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "method": {"dora": True},
    "wrapper": {"adaptive": False},
    "head": {"normalise": False},
    "data": {"augment": "sbi", "protocol": "fmsd"},
}
DATASETS = {"train": ["ff++"], "test": ["ff++", "celebdf_v2", "mine"]}


def write_run(
    folder: Path,
    choices: Mapping[str, Any] = CHOICES,
    settings: Mapping[str, Any] = SETTINGS,
    datasets: Mapping[str, list[str]] = DATASETS,
    **record: Any,
) -> Run:
    """The record of a run, and its configuration."""
    folder.mkdir(parents=True)
    parts = {part: {name: {"digest": "0"} for name in names} for part, names in datasets.items()}
    (folder / "run.json").write_text(
        json.dumps({"choices": choices, "manifests": parts, "skipped": ["dfdc"]} | record)
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(settings)))
    return Run(folder)


def by_key(found: CitedPapers) -> dict[str, set[str]]:
    """What cites a paper, by the key of its entry."""
    return {paper.key: parts for paper, parts in found.parts.items()}


USED = {
    "fmsd": {"fmsd", "protocol=fmsd"},
    "foret2021sam": {"wrapper=sam"},
    "hu2022lora": {"method=lora"},
    "li2020celebdf": {"data=celebdf_v2"},
    "liu2024dora": {"method.dora=true"},
    "loshchilov2017sgdr": {"schedule=cosine"},
    "loshchilov2019adamw": {"optimizer=adamw"},
    "radford2021clip": {"backbone=clip_vit_l14"},
    "roessler2019ffpp": {"data=ff++"},
    "shiohara2022sbi": {"data.augment=sbi"},
}


def test_a_run_cites_what_it_used_and_says_what_has_no_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    found = cited_papers([run])
    assert (by_key(found), found.unknown, found.skipped) == (USED, {"data=mine"}, set())
    assert main(["cite", str(run.folder)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("% Written by fmsd cite.\n% No paper is known for data=mine.\n\n%")
    assert re.findall(r"^@\w+\{(.*),$", text, re.MULTILINE) == sorted(USED)
    assert "\n% method.dora=true\n@inproceedings{liu2024dora,\n" in text
    assert main(["cite", f"run={run.folder / 'run.json'}"]) == 0
    assert capsys.readouterr().out == text


def test_an_evaluation_adds_its_datasets_protocol_and_corruptions(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_run(
        tmp_path / "run" / "evaluations" / "one",
        settings=SETTINGS
        | {"corrupt": "all", "data": SETTINGS["data"] | {"protocol": "dfb_compat"}},
        datasets={"test": ["df40"]},
        run=str(run.folder),
    )
    text = cite(run.folder, None)
    assert "% data=df40\n@inproceedings{yan2024df40," in text
    assert "% protocol=dfb_compat\n@inproceedings{yan2023deepfakebench," in text
    assert "% corrupt\n@inproceedings{hendrycks2019corruptions," in text
    assert "% fmsd, protocol=fmsd\n@misc{fmsd," in text
    assert "% corrupt" not in cite(None, write_run(tmp_path / "other").folder)


def test_a_merge_cites_its_merger_and_its_experts(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a")
    second = write_run(tmp_path / "b", {"method": "effort"}, {}, {"train": ["df40"]})
    (tmp_path / "file.safetensors").touch()
    merge = tmp_path / "merge"
    experts = [str(path) for path in (first.folder, second.folder, merge)]
    write_run(
        merge, {"merger": "ties"}, {"experts": [*experts, str(tmp_path / "file.safetensors")]},
        {"test": ["uadfv"]}, merged=["a", "b"], origin={"train": {"dfdc": "0", "unknown": ""}},
    )  # fmt: skip
    found = cited_papers([Run(merge)])
    parts = by_key(found)
    assert parts["yadav2023ties"] == {"merger=ties"}
    assert parts["fmsd"] == USED["fmsd"]
    assert {"yan2025effort", "hu2022lora", "yan2024df40", "yang2019uadfv"} < parts.keys()
    assert parts["dolhansky2020dfdc"] == {"data=dfdc"}
    assert found.unknown == {"data=mine"}
    (skipped,) = found.skipped
    assert "the expert 'file.safetensors'" in skipped


# ---- records from elsewhere


def test_choices_that_are_no_known_names_are_skipped_with_a_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.yaml").write_text("# Cite: hu2022lora\n")
    hostile: dict[str, Any] = {
        "method": f"../../{tmp_path}/mine",
        "wrapper": str(tmp_path / "mine"),
        "backbone": "x,\n@article{evil,",
        "data": ["ff++"],
        "merger": 3,
        "optimizer": {"a": "adam"},
        "schedule": None,
        "../method": "lora",
    }
    names = [
        "@article{evil,",
        "../up",
        "a\n@misc{evil,",
        "_dataset",
        "\u202e",
        "x" * 300,
        "unknown",
    ]
    run = write_run(tmp_path / "run", hostile, {"data": [1]}, {"test": names})
    with caplog.at_level(logging.WARNING):
        text = cite(run.folder, None)
    assert len(caplog.messages) == 6
    assert all(message.endswith("cite its papers yourself.") for message in caplog.messages)
    assert re.findall("@.*", text) == ["@misc{fmsd,"]
    assert "(at)article{evil," in text
    assert all(
        line.startswith("%") for line in text.partition("@misc{fmsd,")[0].split("\n") if line
    )


@pytest.mark.parametrize(
    "record",
    [{"choices": 3}, {"manifests": [1]}, {"manifests": {"test": 3}}, {"merged": 3}],
    ids=str,
)
def test_a_damaged_record_is_named(record: dict[str, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", **record)
    with pytest.raises(InputError, match=rf"run\.json is damaged: '{next(iter(record))}"):
        cite(run.folder, None)


def test_a_record_of_another_form_cites_as_far_as_it_goes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", origin={"train": [1]})
    assert "@misc{fmsd," in cite(run.folder, None)


@pytest.mark.parametrize(
    ("experts", "told"),
    [
        (3, ["does not record its experts"]),
        ({"a": "b"}, ["does not record its experts"]),
        ([3, "a\0b", "", "/x\x1b]0;a\a"], ["'3'", r"'a\x00b'", "''", r"'/x\x1b]0;a\x07'"]),
        (["/dev/null"], ["'null'"]),
        (["/" + "x" * 300], [f"'{'x' * 60}'"]),
        (["loop/loop"], ["'loop'"]),
    ],
)
def test_an_expert_that_cannot_be_followed_is_told(
    experts: Any, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    run = write_run(tmp_path / "run", {"merger": "ties"}, {"experts": experts}, {}, merged=["a"])
    found = cited_papers([run])
    assert by_key(found).keys() == {"fmsd", "yadav2023ties"}
    assert len(found.skipped) == len(told)
    assert all(sentence.isprintable() for sentence in found.skipped)
    assert all(any(name in sentence for sentence in found.skipped) for name in told)


@pytest.mark.parametrize(
    ("name", "text"),
    [("run.json", "{"), ("run.json", "[" * 100_000), ("config.yaml", "a: *b"),
     ("config.yaml", "\xff")],
)  # fmt: skip
def test_a_damaged_expert_is_told_and_the_others_are_cited(
    name: str, text: str, tmp_path: Path
) -> None:
    experts = [write_run(tmp_path / "a").folder, write_run(tmp_path / "b", {}, {}, {}).folder]
    (experts[1] / name).write_text(text, encoding="latin-1")
    run = write_run(
        tmp_path / "run", {}, {"experts": [str(expert) for expert in experts]}, {}, merged=["a"]
    )
    found = cited_papers([run])
    assert USED.keys() <= by_key(found).keys()
    (sentence,) = found.skipped
    assert sentence.startswith(str(experts[1] / name))
    assert sentence.endswith(f": cite the papers of {experts[1]} yourself")
    assert "@misc{fmsd," in cite(run.folder, None)


def test_a_damaged_bibliography_of_fmsd_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it nothing could be cited, and an empty file would look like the whole answer."""

    def damaged() -> None:
        raise InputError("references.bib is no bibliography", "install fmsd again")

    run = write_run(tmp_path / "run")
    monkeypatch.setattr("fmsd.tasks.cite.papers", damaged)
    with pytest.raises(InputError, match="install fmsd again"):
        cite(run.folder, None, tmp_path / "used.bib")
    assert not (tmp_path / "used.bib").exists()


def test_a_choice_of_an_installed_plugin_is_cited_and_one_of_none_is_not(tmp_path: Path) -> None:
    entry = "@misc{me2026mine,\n  author = {Me},\n  title = {Mine},\n  year = {2026},\n}\n"
    files = {"conf/method/mine.yaml": "# Mine.\n# Cite: me2026mine\n_target_: odd.x\n"}
    write_package(tmp_path / "site", "odd", files | {"conf/references.bib": entry})
    run = write_run(tmp_path / "run", {"method": "mine"}, {}, {})
    with on_path(tmp_path / "site"):
        found = cited_papers([run])
    assert by_key(found) == {"fmsd": {"fmsd"}, "me2026mine": {"method=mine"}}
    (skipped,) = cited_papers([run]).skipped
    assert skipped.startswith(f"method='mine' of {run.folder} is no choice of fmsd or of an")


ENTRY = "@misc{hu2022lora,\n  author = {Hu},\n  title = {Another one},\n  year = {2022},\n}\n"


def test_a_faulty_bibliography_concerns_the_choices_of_its_package_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"conf/method/mine.yaml": "# Mine.\n# Cite: me2026mine\n_target_: odd.x\n"}
    write_package(tmp_path / "site", "odd", files | {"conf/references.bib": "faulty\n"})
    run = write_run(tmp_path / "run")
    mine = write_run(tmp_path / "mine", {**CHOICES, "method": "mine"})
    with on_path(tmp_path / "site"):
        assert main(["train", "--help", "method=lora"]) == 0
        found = cited_papers([run])
        assert (by_key(found), found.skipped) == (USED, set())
        found = cited_papers([mine])
        cite(mine.folder, None)
    assert by_key(found) == {key: USED[key] for key in USED.keys() - {"hu2022lora", "liu2024dora"}}
    (told,) = found.skipped
    assert str(tmp_path / "site/odd/conf/references.bib") in told
    assert told.endswith(": cite me2026mine yourself")
    assert caplog.messages == [f"{told}."]


def test_entries_of_one_key_from_two_packages_are_both_written(tmp_path: Path) -> None:
    for package, entry in (("even", ENTRY), ("odd", ENTRY.replace("Another", "A third"))):
        files = {
            f"conf/wrapper/{package}.yaml": f"# Mine.\n# Cite: hu2022lora\n_target_: {package}.x\n"
        }
        write_package(tmp_path / "site", package, files | {"conf/references.bib": entry})
    runs = [
        write_run(tmp_path / "runs" / wrapper, {"method": "lora", "wrapper": wrapper}, {}, {})
        for wrapper in ("even", "odd", "sam")
    ]
    with on_path(tmp_path / "site"):
        found = cited_papers(runs)
        cite(None, tmp_path / "runs", tmp_path / "out.bib")
    titles = {
        parts.pop(): paper.fields["title"]
        for paper, parts in found.parts.items()
        if paper.key == "hu2022lora"
    }
    assert titles["wrapper=even"] == "Another one"
    assert titles["wrapper=odd"] == "A third one"
    assert titles["method=lora"].startswith("{LoRA}")
    keys = read_bibliography(tmp_path / "out.bib").keys()
    assert {"hu2022lora", "hu2022lora-2", "hu2022lora-3", "foret2021sam"} < keys


# ---- the command


def fault(*words: object) -> str:
    with pytest.raises(InputError) as error:
        cite(*words)  # pyright: ignore[reportArgumentType]
    return str(error.value)


def test_a_file_is_written_whole_and_replaces_none_but_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_run(tmp_path / "run").folder, tmp_path / "new" / "mine.bib"
    assert main(["cite", f"run={run}", f"out={out}"]) == 0
    assert f"{len(USED)} entries lie in {out}" in capsys.readouterr().out
    assert list(read_bibliography(out)) == sorted(USED)
    write_run(tmp_path / "other", {"method": "masm"})
    assert main(["cite", f"runs={tmp_path}", f"out={out}"]) == 0
    assert "zhang2026masm" in read_bibliography(out)
    assert [path.name for path in out.parent.iterdir()] == ["mine.bib"]
    for text in ("", "@misc{mine,}", "% Written by fmsd report.\n"):
        out.write_text(text)
        assert main(["cite", f"run={run}", f"out={out}"]) == 2
        assert "was not written by fmsd cite and would be lost" in capsys.readouterr().err
        assert out.read_text() == text


def test_a_command_without_a_run_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "a").folder
    assert "give either run=RUN or runs=FOLDER" in fault(None, None)
    assert "give either run=RUN or runs=FOLDER" in fault(run, run)
    assert "is not the folder of a trained run" in fault(tmp_path / "runs", None)
    (tmp_path / "empty").mkdir()
    assert "There is no run below" in fault(None, tmp_path / "empty")
    assert "There is no run below" in fault(None, tmp_path / "gone")
    assert "is no name of a BibTeX file" in fault(run, None, tmp_path / "mine.txt")
    for name, text in (("config.yaml", "a: *b"), ("config.yaml", "\xff"), ("run.json", "{")):
        before = (run / name).read_bytes()
        (run / name).write_bytes(text.encode("latin-1"))
        assert str(run / name) in fault(run, None)
        (run / name).write_bytes(before)


# ---- trained runs


@pytest.mark.slow
def test_trained_evaluated_and_merged_runs_cite_what_their_commands_chose(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = fmsd_here(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    common = ["train", "data=synthetic", "trainer=smoke", "method=lora", "data.augment=effort"]
    sagm = ["method.dora=true", "wrapper=sagm", "wrapper.adaptive=true"]
    run(*common, *sagm, "hydra.run.dir=first")
    run(*common, "optimizer=sgd", "optimizer.lr=0.1", "hydra.run.dir=second")
    run("evaluate", "second", "corrupt=[jpeg]", "severities=[1]")
    run("merge", "merger=tsv", "experts=[first,second]", "out=merged")
    always = {"fmsd", "hu2022lora", "loshchilov2017sgdr", "yan2025effort"}
    adaptive = {"liu2024dora", "wang2023sagm", "kwon2021asam", "loshchilov2019adamw"}
    corrupted = {"hendrycks2019corruptions", "jiang2020deeperforensics"}
    for folder, keys in {
        "first": always | adaptive,
        "second": always | corrupted,
        "merged": always | adaptive | {"gargiulo2025tsv"},
    }.items():
        run("cite", folder, f"out={folder}.bib")
        assert read_bibliography(tmp_path / f"{folder}.bib").keys() == keys
    lines = (tmp_path / "second.bib").read_text().splitlines()
    assert (
        "% No paper is known for data=synthetic_shift, loss=bce, optimizer=sgd, wrapper=erm."
        in lines
    )
    done = fmsd_command("cite", "run=merged", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert "% merger=tsv\n@inproceedings{gargiulo2025tsv," in text
    assert "% backbone=demo_vit, data=synthetic, fmsd, protocol=fmsd\n" in text
