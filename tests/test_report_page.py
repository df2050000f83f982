"""The page of a report as a reader sees it, on a desktop and on a phone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from fmsd.figures.curves import shows_det
from fmsd.peft.mask import MaskHistory, Masking, choose_layers
from fmsd.report import html
from fmsd.report.columns import SEEN, UNSEEN
from fmsd.report.coverage import scored_phrase, scored_shares
from fmsd.report.protocol_words import protocol_sentences
from fmsd.report.result_html import number_table
from fmsd.report.sections.training import whole_mask
from fmsd.report.tables import Cell, Table
from fmsd.tasks.report import report
from tests import runs
from tests.pages import Outline, quiet_tab
from tests.runs import CORRUPTIONS, evaluation, finished

PHONE, SCREENS = {"width": 390, "height": 844}, 10
ROWS = {
    "probe": ["method=probe"],
    "lora": ["method=lora"],
    "lora, rank 8": ["method=lora", "method.rank=8"],
    "fmsd": ["method=fmsd"],
    "fmsd, no mask": ["method=fmsd", "method.mask=null"],
}
DATASETS = ("ff", "celeb", "dfdc", "dfd", "deeperforensics", "wild_deepfake")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of six rows on six datasets."""
    place = tmp_path_factory.mktemp("page")
    layers = [f"blocks.{block}.attn.qkv" for block in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        for name in DATASETS[3:]:
            patch.setitem(runs.FORGERIES, name, ("swap",))
        for place_of, (name, words) in enumerate(ROWS.items()):
            shift = 9.0 if name == "fmsd" else 0.6 + 0.4 * place_of
            for seed in (0, 1):
                run = finished(
                    place / "runs" / f"{place_of}_{seed}",
                    words,
                    seed,
                    datasets=DATASETS,
                    shift=shift,
                )
                if not seed and "fmsd" in name:
                    masking = Masking(bias="none" if "," in name else "random")
                    run.write("mask.json", choose_layers(masking, layers).text())
            evaluation(run.folder, "corrupted", "celeb", 3, 5_000, corruptions=CORRUPTIONS)
        merged = {"merged": ["a", "b"], "choices": {"merger": "r2m"}}
        finished(place / "runs" / "merge", ["merger=r2m"], 0, datasets=DATASETS, **merged)
        report(place / "runs", out=place / "out", against="no mask", resamples=50)
    return place / "out"


@pytest.fixture
def tab(browser: Any, folder: Path) -> Iterator[Any]:
    with quiet_tab(browser, folder / "report.html") as opened:
        yield opened


def test_rows_have_names_and_the_page_no_path_outside_its_folds(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    results = text.partition('<section id="results">')[2].partition("</section>")[0]
    shown = re.sub(r"<details>.*?</details>", "", results, flags=re.DOTALL)
    for name in (*ROWS, "R2M of a + b"):
        assert f"{name}</th>" in shown
    assert "method=" not in shown
    assert "method.mask=null method=fmsd" in results
    assert str(folder.parent) not in text
    assert set(pl.read_csv(folder / "results.csv")["run"]) == {*ROWS, "R2M of a + b"}


def test_unseen_datasets_come_first_and_their_mean_before_them(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    head = text.partition("<thead>")[2].partition("</thead>")[0]
    groups = re.findall(r'<th scope="colgroup" colspan="(\d)"><span>(.*?)</span>', head)
    assert groups == [("6", "unseen (not trained on)"), ("1", "seen (trained on)")]
    names = re.findall(r'<th scope="col"><button type="button">([a-z_ ]+)<', head)
    assert names == [UNSEEN, *DATASETS[1:], "ff"]
    assert "of 5 datasets" in head
    assert head.count("12 real,<br>12 fake videos") == 4
    assert SEEN not in head
    said = "Unseen (not trained on): celeb, dfdc, dfd, deeperforensics, wild_deepfake; seen"
    assert said in (folder / "results.md").read_text()
    assert said.replace("_", r"\_") in (folder / "results.tex").read_text()


def test_one_curve_figure_is_seen_and_the_others_are_chosen(folder: Path, tab: Any) -> None:
    seen = "#curves figure svg"
    visible = "nodes => nodes.filter(node => node.checkVisibility()).length"
    assert tab.eval_on_selector_all(seen, visible) == 2
    tab.locator("#curves select").select_option(index=2)
    assert tab.eval_on_selector_all(seen, visible) == 2
    caption = tab.locator("#curves .pane[open] figcaption").first
    assert caption.inner_text() == "ROC curves on dfd (12 real, 12 fake videos)"
    picture = tab.locator("#curves .pane[open] svg").first
    assert caption.bounding_box()["y"] < picture.bounding_box()["y"]


def test_without_scripts_the_first_pane_is_open_and_others_open_by_a_click(
    browser: Any, folder: Path
) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto((folder / "report.html").as_uri())
    panes = opened.locator("#curves details.pane")
    assert [panes.nth(i).locator("svg").first.is_visible() for i in range(3)] == [
        True,
        False,
        False,
    ]
    assert not opened.locator("#curves select").is_visible()
    panes.nth(1).locator("summary").click()
    assert panes.nth(1).locator("svg").first.is_visible()
    context.close()


def test_a_phone_needs_few_screens_and_does_not_scroll_sideways(tab: Any) -> None:
    tab.set_viewport_size(PHONE)
    height = tab.evaluate("document.documentElement.scrollHeight")
    assert height <= SCREENS * PHONE["height"]
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    tab.locator("#unfold").click()
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert tab.evaluate("document.documentElement.scrollHeight") > height
    tab.locator("#unfold").click()
    assert tab.evaluate("document.documentElement.scrollHeight") == height


def test_the_first_column_stays_and_what_is_cut_off_shows_it(tab: Any) -> None:
    tab.set_viewport_size(PHONE)
    scroll = tab.locator("#results .pane[open] .scroll").first
    head = scroll.locator("tbody th").first
    name, value = head.bounding_box()["x"], scroll.locator("tbody td").first.bounding_box()["x"]

    def cut() -> list[bool]:
        sides = "node => ['left', 'right'].map(side => node.hasAttribute(`data-${side}`))"
        return scroll.evaluate(sides)

    assert cut() == [False, True]
    assert "gradient" in scroll.evaluate("node => getComputedStyle(node).maskImage")
    scroll.evaluate("node => { node.scrollLeft = 120; }")
    tab.wait_for_selector("#results .pane[open] .scroll[data-left]")
    assert cut() == [True, True]
    assert head.bounding_box()["x"] == name
    assert scroll.locator("tbody td").first.bounding_box()["x"] < value - 100
    scroll.evaluate("node => { node.scrollLeft = node.scrollWidth; }")
    tab.wait_for_selector("#results .pane[open] .scroll:not([data-right])")
    assert cut() == [True, False]


def test_a_link_opens_a_folded_section_and_paper_shows_all(tab: Any) -> None:
    assert not tab.locator("#cost table").is_visible()
    tab.locator("nav a[href='#cost']").click()
    assert tab.locator("#cost table").is_visible()
    assert not tab.locator("#papers ul").is_visible()
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("#papers ul").is_visible()
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not tab.locator("#papers ul").is_visible()
    assert tab.locator("#cost table").is_visible()


def test_the_protocol_is_told_in_words_and_digests_are_folded(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    part = text.partition('<section id="protocol">')[2].partition("</section>")[0]
    words, _, folded = part.partition("<details>")
    assert "All rows are trained on the same frames of ff" in words
    assert "weights are chosen on a validation split of the training data" in words
    assert not re.search("[0-9a-f]{12}", words)
    assert re.search("[0-9a-f]{12}", folded)


def test_every_fact_of_the_protocol_is_told() -> None:
    common = {"frames": 32, "sampling": "first", "video_score": "max", "coverage": "as_real"}
    said = " ".join(
        protocol_sentences([common | {"size": 224, "dataset": "a"}, common | {"size": 256}])
    )
    assert "At most 32 frames of a video are tested, the first ones." in said
    assert "Its score is the highest probability of its frames." in said
    assert "coverage: as_real" in said
    assert "The results differ in the size of the images" in said


def test_a_mask_that_keeps_all_is_a_sentence(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    part = text.partition('<section id="masks">')[2].partition("</section>")[0]
    assert "<p>fmsd, no mask: all 4 candidate layers are trained.</p>" in part
    assert part.count("<figure>") == 1
    always = MaskHistory(["a", "b"], [0, 5], [[True, True]] * 2, [[0.5, 0.5]] * 2)
    assert whole_mask(always) == "all 2 artifact subspaces are trained at every step."
    assert whole_mask(MaskHistory(["a", "b"], [0], [[True, False]], [[0.5, 0.5]])) == ""
    assert whole_mask(choose_layers(Masking(bias="random"), ["x.1.a", "x.2.a"])) == ""


def test_empty_det_curves_are_left_out_with_the_reason(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "best", ["method=a"], 0, datasets=("ff",), shift=50.0)
    report(tmp_path / "runs", out=tmp_path / "out", resamples=0)
    text = (tmp_path / "out" / "report.html").read_text()
    part = text.partition('<section id="curves">')[2].partition("</section>")[0]
    assert "DET curves on ff: every row ranks all videos without an error." in part
    assert part.count("<figure>") == 1
    labels = torch.tensor([0, 0, 1, 1])

    def is_shown(*scores: float) -> bool:
        return shows_det((torch.tensor(scores, dtype=torch.float64), labels))

    assert not is_shown(0.1, 0.2, 0.8, 0.9)
    assert not is_shown(0.8, 0.9, 0.1, 0.2)
    assert is_shown(0.1, 0.8, 0.2, 0.9)
    assert is_shown(0.5, 0.5, 0.5, 0.5)


def test_coverage_is_shown_where_some_frames_have_no_score() -> None:
    counts = {"n_expected": [1000, 500], "n_scored": [982, 500]}
    shown = pl.DataFrame({"run": ["x", "x"], "dataset": ["a", "b"], **counts})
    means = {UNSEEN: ["a", "b"]}
    assert scored_shares(shown, means) == {("x", "a"): 0.982, ("x", UNSEEN): 1482 / 1500}
    assert scored_shares(shown.drop("n_scored"), means) == {}
    none = shown.with_columns(n_expected=pl.lit(None, pl.Int64), n_scored=pl.lit(None, pl.Int64))
    assert scored_shares(none, means) == {}
    assert scored_phrase(0.982) == "98.2 % scored"
    assert scored_phrase(0.99999) == "99.9 % scored"
    assert scored_phrase(None) == ""
    cells = {"x": {"a": Cell(0.9, scored=0.982), "b": Cell(0.8)}}
    text = number_table(Table("AUC", "auc", "video", ("a", "b"), cells), {})
    assert text.count("% scored") == text.count("<small>98.2 % scored</small>") == 1
    assert Cell(0.9, low=0.8, high=1.0, scored=0.5).around == " [0.800, 1.000], 50.0 % scored"


def test_folded_parts_escape_what_they_hold() -> None:
    section = html.Section("a", "<b>", html.folded("<i>", html.paragraph("<u>")), is_folded=True)
    text = html.document("<t>", "<s>", [section])
    assert Outline(text).open == []
    assert not {"<b>", "<i>", "<u>", "<t>"} & set(re.findall(r"<\w+>", text))
    assert 'id="unfold"' in text
    assert 'id="unfold"' not in html.document("t", "s", [html.Section("a", "b", "c")])
