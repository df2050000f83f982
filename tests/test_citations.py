"""Papers: every choice cites what it is from, every entry is whole, and pages name the same."""

import re
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from fmsd.citations import (
    BIBLIOGRAPHY,
    file_citations,
    find_papers,
    papers,
    plain_text,
    read_bibliography,
)
from fmsd.cli.conf_files import choices
from fmsd.cli.help import file_header, help_page
from fmsd.errors import InputError
from fmsd.package_files import CONF
from fmsd.plugins import choice_files
from fmsd.runs.configuration import flatten
from tests.conftest import ROOT
from tests.installed import on_path, write_package

GROUPS = (
    "backbone", "data", "detector", "loss", "merger", "method", "optimizer", "protocol",
    "schedule", "wrapper",
)  # fmt: skip

WITHOUT_PAPER = {
    "data=extracted", "data=faces", "data=folder", "data=parquet", "data=table",  # own
    "loss=bce", "method=full", "method=probe", "optimizer=sgd", "schedule=constant", "wrapper=erm",
    "experiments=recipes/lora",  # its source is a repository without a paper
}  # fmt: skip

RELATED = {"2405.19597", "2501.06252"}
"""Papers that a page compares a method with, and that nothing here computes."""

FILES = sorted(path for depth in ("", "*/", "*/*/") for path in CONF.glob(f"{depth}*.yaml"))
CONDITIONS = sorted(
    (citation.condition, file.relative_to(CONF).with_suffix("").as_posix())
    for file in FILES
    for citation in file_citations(file)
    if citation.condition
)


def cited_keys(file: Path) -> set[str]:
    return {key for citation in file_citations(file) for key in citation.keys}


def test_every_choice_cites_a_paper_unless_it_has_none() -> None:
    names = [(group, choice) for group in GROUPS for choice in choices(group)]
    names += [("experiments", name) for name in choices("experiments") if "recipes/" in name]
    without = {
        f"{group}={choice}"
        for group, choice in names
        if not any(not one.condition for one in file_citations(choice_files(group)[choice]))
    }
    assert without == WITHOUT_PAPER


def test_what_is_cited_is_there_and_what_is_there_is_cited() -> None:
    cited = {key for file in FILES for key in cited_keys(file)}
    assert cited == set(papers())


@pytest.mark.parametrize("key", sorted(papers()))
def test_every_entry_has_authors_title_year_and_an_address(key: str) -> None:
    paper = papers()[key]
    for name in ("author", "title", "year"):
        assert re.fullmatch(r"[^\\{}]+", plain_text(paper.fields[name]))
    assert key == "fmsd" or re.fullmatch(rf"[a-z]+{int(paper.fields['year'])}[a-z0-9]+", key)
    assert (paper.link is None) == (key == "fmsd")  # which has no address yet
    if paper.link is not None:
        assert paper.link[1].startswith("https://")
    venue = {"booktitle", "journal", "howpublished", "eprint"} & paper.fields.keys()
    assert venue or key == "fmsd"
    assert ("eprint" in paper.fields) == (paper.fields.get("archiveprefix") == "arXiv")


def test_entries_are_sorted_and_read_as_plain_text() -> None:
    assert list(papers()) == sorted(papers())
    assert "R\u00f6ssler et al. (2019): FaceForensics++" in papers()["roessler2019ffpp"].reference
    assert papers()["wu2023yunet"].link == (
        "doi 10.1007/s11633-023-1423-y",
        "https://doi.org/10.1007/s11633-023-1423-y",
    )


@pytest.mark.parametrize(("condition", "name"), CONDITIONS)
def test_a_condition_can_be_met_and_is_not_met_by_default(condition: str, name: str) -> None:
    (citation,) = (
        one for one in file_citations(CONF / f"{name}.yaml") if one.condition == condition
    )
    group, _, choice = name.rpartition("/")
    verb = choice if not group else "train"
    words = [f"{group}={choice}"] if group in GROUPS else []

    def applies(*more: str) -> bool:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = OmegaConf.to_container(hydra.compose(verb, [*words, *more]))
        return citation.applies(flatten(config))

    assert not applies()
    assert applies(condition if "=" in condition else f"{condition}=all")


# ---- the pages and the headers name the same papers


def arxiv_ids(text: str) -> set[str]:
    return set(re.findall(r"\b\d{4}\.\d{5}\b", text))


def entry_ids(keys: set[str]) -> set[str]:
    numbers = (papers()[key].fields.get("eprint") for key in keys)
    return {number.partition("v")[0] for number in numbers if number}


def test_every_arxiv_id_in_a_header_or_on_a_page_of_a_method_has_an_entry() -> None:
    known = entry_ids(set(papers()))
    pages = sorted((ROOT / "docs" / "methods").glob("*.md"))
    found = {path: arxiv_ids(path.read_text()) for path in [*FILES, *pages]}
    assert {
        path: ids - known - RELATED for path, ids in found.items() if ids - known - RELATED
    } == {}
    assert set.union(*found.values()) >= RELATED


@pytest.mark.parametrize("group", ["method", "wrapper", "merger"])
def test_the_page_of_a_method_names_what_it_cites(group: str) -> None:
    for choice in choices(group):
        text = (ROOT / "docs" / "methods" / f"{choice}.md").read_text()
        named = {
            number
            for line in text.splitlines()
            if re.match(r"Papers?: ", line)
            for number in arxiv_ids(line)
        }
        file = choice_files(group)[choice]
        always = {key for one in file_citations(file) if not one.condition for key in one.keys}
        assert named <= entry_ids(cited_keys(file))
        assert entry_ids(always) <= arxiv_ids(text)


def test_the_citation_file_agrees_with_the_entries() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    own = papers()["fmsd"].fields
    assert plain_text(own["title"]) == citation["title"]
    assert [plain_text(own["author"])] == [author["name"] for author in citation["authors"]]
    assert own["note"] == f"Version {citation['version']}, {citation['license']}"
    by_id = {paper.fields.get("eprint"): paper for paper in papers().values()}
    for reference in citation["references"]:
        (identifier,) = reference["identifiers"]
        paper = by_id[identifier["value"].removeprefix("arXiv:")]
        assert plain_text(paper.fields["title"]) == reference["title"]
        assert paper.fields["author"].split(" and ") == [
            f"{author['family-names']}, {author['given-names']}" for author in reference["authors"]
        ]


# ---- headers


def test_a_header_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "# A method. Cite it.\n# Cite: a2020b, c2021d\n# Cite if method.x=true: e2022f\n"
        "# Cite if corrupt: g2023h\nkey: 1    # Cite: no2000no\n"
    )
    first, second, third = file_citations(file)
    assert (first.keys, first.condition) == (("a2020b", "c2021d"), "")
    assert file_header(file)[0] == "A method. Cite it."
    for settings, met in (
        ({}, (True, False, False)),
        ({"method.x": True, "corrupt": ["jpeg"]}, (True, True, True)),
        ({"method.x": "true", "corrupt": "all"}, (True, True, True)),
        ({"method.x": False, "corrupt": None}, (True, False, False)),
        ({"method.x": 1, "corrupt": []}, (True, False, False)),
        *(({"corrupt": value}, (True, False, False)) for value in (False, 0, "", {})),
    ):
        assert tuple(one.applies(settings) for one in (first, second, third)) == met


def test_the_help_of_a_choice_shows_its_papers_with_their_addresses() -> None:
    lines = help_page("train", ["method=lora"]).splitlines()
    assert "Cite: hu2022lora (https://arxiv.org/abs/2106.09685)" in lines
    assert "Cite if method.dora=true: liu2024dora (https://arxiv.org/abs/2402.09353)" in lines
    assert "Cite" not in help_page("train", ["method=probe"])
    assert "Cite" not in help_page("train", ["method"])
    assert "Cite" not in help_page("train")


# ---- bibliographies of a wrong form

ENTRY = "@misc{key,\n  author = {A, B},\n  title = {T},\n  year = {2020},\n}\n"


def fault(call: Any, *arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        call(*arguments)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello\n", "'hello' belongs to no entry"),
        (ENTRY + "}\n", "'}' belongs to no entry"),
        (ENTRY * 2, "the entry key is there twice"),
        (ENTRY.replace("title", "note"), "the entry key has no title"),
        (ENTRY.replace("{A, B}", "{}"), "the entry key has no author"),
        (ENTRY.replace("{T}", "{T"), "the entry key has the field 'title = {T,'"),
        (ENTRY.replace("{T}", "{T}}"), "the entry key has the field 'title = {T}},'"),
        (ENTRY.replace("{T}", '"T"'), "the entry key has the field 'title = \"T\",'"),
        (ENTRY.replace("{2020}", "2020"), "the entry key has the field 'year = 2020,'"),
        (ENTRY.replace("year", "url = {javascript:x},\n  year"), "has the url 'javascript:x'"),
        (ENTRY.replace("year", "url = {https://x.org/\"onload},\n  year"), "has the url"),
        (ENTRY.replace("year", "eprint = {../x y},\n  year"), "has the eprint '../x y'"),
        (ENTRY.replace("{T}", "{T}, url = {https://x.org/\x1b]0;\a}"), r"line 3 holds '\x1b'"),
        (ENTRY.replace("{T}", "{T\u202e}"), r"line 3 holds '\u202e', which cannot be printed"),
        (ENTRY.replace("{T}", "{T\u2028}"), "line 3 holds"),
        (ENTRY + "% \0\n", "line 6 holds"),
        ("@string{a = {b}}\n" + ENTRY, "'@string{a = {b}}' belongs to no entry"),
    ],
)  # fmt: skip
def test_a_bibliography_of_another_form_is_refused(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / BIBLIOGRAPHY
    file.write_text(text, encoding="utf-8")
    told = fault(read_bibliography, file)
    assert str(file) in told
    assert why in told
    assert told.isprintable()


def test_a_bibliography_is_read_as_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = tmp_path / BIBLIOGRAPHY
    text = ENTRY.replace("{T}", "{\u00dcber \u4e00\t}")
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_text(text, encoding=encoding)
        (paper,) = read_bibliography(file).values()
        assert paper.fields["title"] == "\u00dcber \u4e00"
    file.write_bytes(text.encode("utf-16"))
    assert (
        fault(read_bibliography, file) == f"{file} is not encoded in UTF-8; save it again in UTF-8."
    )


def test_a_value_may_go_on_in_the_next_line(tmp_path: Path) -> None:
    file = tmp_path / BIBLIOGRAPHY
    file.write_text(
        "% a comment\n\n@article{a+b:c,\n  author={{A Team} and {\\v{C}}ech, {\\'E}. and others},\n"
        "  title   = {One {Two}\n             three},\n  year={1999}\n}\n"
    )
    (paper,) = read_bibliography(file).values()
    assert paper.key == "a+b:c"
    assert paper.fields["title"] == "One {Two} three"
    assert paper.reference == "A Team et al. (1999): One Two three"
    assert paper.link is None
    assert paper.text == file.read_text().partition("\n\n")[2].strip()


# ---- plugins


@pytest.mark.usefixtures("installed")
def test_a_plugin_brings_papers_of_its_own() -> None:
    assert "Cite: liu2022ia3 (https://arxiv.org/abs/2205.05638)" in help_page(
        "train", ["method=ia3"]
    )
    assert "liu2022ia3" not in papers()


def test_a_key_is_looked_up_in_the_package_that_cites_it_and_then_in_fmsd(tmp_path: Path) -> None:
    text = "# Mine.\n# Cite: hu2022lora, foret2021sam\n_target_: odd.x\n"
    entry = ENTRY.replace("{key", "{hu2022lora").replace("{T}", "{Mine}")
    write_package(tmp_path, "odd", {f"conf/{BIBLIOGRAPHY}": entry, "conf/method/mine.yaml": text})
    with on_path(tmp_path):
        for choice, title in (("mine", "Mine"), ("lora", papers()["hu2022lora"].fields["title"])):
            file = choice_files("method")[choice]
            first, *others = find_papers(file_citations(file)[0], file)
            assert first.fields["title"] == title
            assert [paper.key for paper in others] == (["foret2021sam"] if choice == "mine" else [])


def test_a_key_that_no_file_has_is_told_in_one_sentence(tmp_path: Path) -> None:
    text = "# Mine.\n# Cite: nobody2020\n_target_: odd.x\n"
    write_package(tmp_path, "odd", {"conf/method/mine.yaml": text})
    own = tmp_path / "odd" / "conf" / BIBLIOGRAPHY
    with on_path(tmp_path):
        file = choice_files("method")["mine"]
        told = fault(find_papers, file_citations(file)[0], file)
        assert told == fault(help_page, "train", ["method=mine"])
    assert f"{file} cites nobody2020, which neither {own} nor that of fmsd has; add it to" in told
