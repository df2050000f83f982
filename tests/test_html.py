"""The page of a report, in a real browser: it renders, sorts and stays readable in light and dark,
and asks nobody for anything.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fmsd.figures import curves
from fmsd.figures.svg import inline_svg
from fmsd.peft.mask import Masking, choose_layers
from fmsd.report.overview import MAX_LINES, figure_lines
from fmsd.report.result_html import number_table as table_html
from fmsd.report.tables import Cell, Table
from fmsd.runs.folder import VALIDATION
from fmsd.tasks.report import report
from tests.pages import CONTRAST, Outline, quiet_tab
from tests.runs import CORRUPTIONS, evaluation, finished, frames

METHODS = {"fmsd": 2.0, "lora": 1.2, "norm": 0.7, "probe": 0.2}
HOSTILE = "note=<script>alert(1)</script>&\"'$x$"
SHOWN = HOSTILE.replace("=", " ", 1)
"""The same in the name of a row."""


def grow(folder: Path) -> Path:
    """Runs of several methods and seeds with everything that a page can show."""
    layers = [
        f"blocks.{block}.{kind}"
        for block in range(12)
        for kind in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ]
    rng = np.random.default_rng(0)
    for method, shift in METHODS.items():
        for seed in (0, 1):
            words = [f"method={method}", *([HOSTILE] if method == "norm" else [])]
            inverted = ("morph",) if method == "probe" else ()
            run = finished(
                folder / f"{method}{seed}",
                words,
                seed,
                inverted,
                datasets=("ff", "celeb", "dfdc"),
                shift=shift,
                choices={"method": method},
            )
            if method in ("fmsd", "lora"):
                run.write_table(VALIDATION, frames("ff", (), 20 + seed, shift))
            if seed:
                continue
            steps = range(0, 2000, 10)
            losses = [
                (step, 0.7 * np.exp(-step * shift / 900) + rng.normal(0, 0.02), None)
                for step in steps
            ]
            aucs = [
                (step, None, 1 - 0.4 * np.exp(-step * shift / 600))
                for step in range(199, 2000, 200)
            ]
            log = pl.DataFrame(
                losses + aucs,
                schema={"step": pl.Int64, "train/loss": pl.Float64, "val/video_auc": pl.Float64},
                orient="row",
            ).sort("step")
            run.write("logs/metrics.csv", log.write_csv())
            if method in ("fmsd", "lora"):
                before = {
                    f"blocks.{block}.attn.qkv": (10 / np.arange(1, 193) ** 0.7).tolist()
                    for block in range(4)
                }
                spectra = {
                    name: {"before": values, "after": [value * 1.3 + 0.02 for value in values]}
                    for name, values in before.items()
                }
                run.write("spectra.json", json.dumps({"layers": spectra}))
            if method == "fmsd":
                run.write("mask.json", choose_layers(Masking(bias="random"), layers).text())
                (run.folder / "explanations").mkdir()
                Image.fromarray(rng.integers(0, 256, (120, 480, 3), np.uint8)).save(
                    run.folder / "explanations" / "heatmaps.png"
                )
            if method in ("fmsd", "probe"):
                evaluation(run.folder, "corrupted", "celeb", 3, 5_000, corruptions=CORRUPTIONS)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    report(grow(place / "runs"), out=place / "out", against="method=probe", resamples=100)
    return place / "out" / "report.html"


SECTIONS = (
    "results",
    "curves",
    "domains",
    "robustness",
    "protocol",
    "worst",
    "cross",
    "verdicts",
    "meaning",
    "transfer",
    "selective",
    "calibration",
    "scores",
    "explanations",
    "masks",
    "spectra",
    "training",
    "cost",
    "papers",
    "repeat",
)


def test_the_page_is_whole_and_needs_no_other_file(page: Path) -> None:
    text = page.read_text()
    outline = Outline(text)
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert set(SECTIONS) <= set(outline.ids)
    papers = {link for link in outline.addresses if link.startswith("https://arxiv.org/abs/")}
    assert papers  # links, which a browser follows only by a click
    assert all(address.startswith(("#", "data:")) for address in {*outline.addresses} - papers)
    assert {address[1:] for address in outline.addresses if address.startswith("#")} <= set(
        outline.ids
    )
    assert "url(http" not in text
    assert "<script>alert" not in text
    assert "#000000" not in text
    assert page.stat().st_size < 2_000_000


def test_parts_without_anything_to_show_are_left_out(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "one", ["method=fmsd"], 0, datasets=("celeb",))
    report(tmp_path / "runs", out=tmp_path / "out", resamples=0)
    assert [
        name
        for name in Outline((tmp_path / "out" / "report.html").read_text()).ids
        if name in SECTIONS
    ] == [
        *("results", "curves", "protocol", "selective", "calibration", "scores", "cost", "papers"),
        "repeat",
    ]


def test_pictures_show_the_best_rows_of_many() -> None:
    cells = {
        f"row {place}": {"a": Cell((place * 7 % 30) / 30), "b": Cell((place * 7 % 30) / 40)}
        for place in range(30)
    }
    auc, eer = (Table("", metric, "video", ("a", "b"), cells) for metric in ("auc", "eer"))
    best = sorted(cells, key=lambda row: -cells[row]["a"].value)
    assert set(figure_lines(auc)) == set(best[:MAX_LINES])
    assert set(figure_lines(eer)) == set(best[-MAX_LINES:])
    assert list(figure_lines(auc).values()) == list(range(MAX_LINES))
    assert "class=swatch" in table_html(auc, figure_lines(auc)).replace('"', "")


def test_a_pictures_ink_is_that_of_the_page_and_its_numbers_are_whole() -> None:
    figure = curves.plot_training([([0, 1, 2], [0.00125, 0.0025, 0.00375])], "loss <$5 & $6>")
    figure.axes[0].set_yticks([0.00125, 0.0025])
    text = inline_svg(figure, "title")
    assert "0.00125" in text
    assert "#000000" not in text
    assert "currentColor" in text
    assert "font-family" not in text
    assert "a$b$c" in inline_svg(
        curves.plot_histograms({"real": np.array([0.1]), "a$b$c": np.array([0.9])}), "scores"
    )
    assert inline_svg(curves.plot_training([([0, 1], [0, 1])], "x"), "title") == inline_svg(
        curves.plot_training([([0, 1], [0, 1])], "x"), "title"
    )
    one, other = (
        set(
            re.findall(
                r'id="([^"]+)"', inline_svg(curves.plot_training([([0, 1], [0, 1])], "x"), title)
            )
        )
        for title in ("one", "other")
    )
    assert one
    assert not one & other


@pytest.fixture
def tab(browser: Any, page: Path) -> Iterator[Any]:
    """The open page; at the end there must be no complaint and no request."""
    with quiet_tab(browser, page) as opened:
        opened.locator("#unfold").click()
        yield opened


def column(tab: Any, place: int) -> list[str]:
    """The numbers of the table that is seen, from top to bottom."""
    return tab.eval_on_selector_all(
        "#results .choice:first-of-type .pane:not([hidden]) tbody tr",
        f"rows => rows.map(row => row.cells[{place}].dataset.value ?? "
        f"row.cells[{place}].textContent)",
    )


def test_tables_sort_by_click_and_by_keyboard(tab: Any) -> None:
    pane = "#results .choice:first-of-type .pane:not([hidden])"
    before = column(tab, 2)
    assert len(before) == len(METHODS)
    head = tab.locator(f"{pane} thead tr:last-child th").nth(2)
    for expected in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == expected
        assert column(tab, 2) == sorted(before, key=float, reverse=expected == "descending")
    assert tab.locator(f"{pane} th[aria-sort]").count() == 1
    first = tab.locator(f"{pane} thead tr:last-child th").nth(0)
    first.locator("button").focus()
    tab.keyboard.press("Enter")
    assert first.get_attribute("aria-sort") == "ascending"
    assert head.get_attribute("aria-sort") is None
    assert column(tab, 0) == sorted(column(tab, 0))


def test_odd_labels_can_be_chosen_and_marks_are_seen(browser: Any, tmp_path: Path) -> None:
    labels = ("note=a|b", "note=a  b\n c", "note= d ")
    for place, label in enumerate(labels):
        run = finished(
            tmp_path / "runs" / str(place),
            [label],
            0,
            datasets=("ff",),
            facts={"size": 224 + place},
        )
        evaluation(run.folder, "stress", "ff", 3, 5_000, corruptions=CORRUPTIONS, size=224 + place)
    report(tmp_path / "runs", out=tmp_path / "out", resamples=0, differ=["size"])
    tab = browser.new_page()
    tab.goto((tmp_path / "out" / "report.html").as_uri())
    tab.locator("#unfold").click()
    for place, label in enumerate(labels):
        tab.locator("#scores select").select_option(index=place)
        seen = tab.locator("#scores .pane:not([hidden])")
        assert seen.count() == 1
        assert " ".join(label.replace("=", " ").split()) in seen.inner_text()
    for table in ("#results .pane:not([hidden])", "#domains .pane:not([hidden])", "#robustness"):
        assert sorted(set(tab.locator(f"{table} td sup").all_inner_texts())) == ["a", "b", "c"]
        assert tab.locator(f"{table} .notes li").count() == 3
    assert tab.locator("#curves .legend sup").all_inner_texts() == ["a", "b", "c"]
    assert tab.locator("header p").inner_text().endswith("; fmsd 0")
    tab.close()


def test_one_table_is_seen_at_a_time(tab: Any) -> None:
    seen = "#results .choice:first-of-type .pane:not([hidden]) caption"
    assert "AUC per video" in tab.locator(seen).inner_text()
    selects = tab.locator("#results .choice:first-of-type select")
    selects.nth(0).select_option("Equal error rate")
    selects.nth(1).select_option("frame")
    assert tab.locator(seen).count() == 1
    assert "Equal error rate per frame" in tab.locator(seen).inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable_in_both_schemes_and_the_button_changes_them(
    tab: Any, scheme: str
) -> None:
    tab.emulate_media(color_scheme=scheme)
    for expected in (scheme, "dark" if scheme == "light" else "light"):
        found = tab.evaluate(CONTRAST)
        assert len(found) > 100
        assert found[0][0] >= 4.5, found[:5]
        assert any((back < 0.1) == (expected == "dark") for *_, back in found)
        tab.locator("#theme").click()


def test_on_a_phone_the_page_is_as_wide_as_the_screen_and_names_stay_in_sight(tab: Any) -> None:
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    pane = tab.locator("#results .choice:first-of-type .pane:not([hidden])")
    pane.locator(".scroll").evaluate("node => node.scrollLeft = 200")
    assert pane.locator(".scroll").evaluate("node => node.scrollLeft") > 0
    left = pane.locator("tbody th").nth(0).bounding_box()["x"]
    assert left >= 0


def test_pictures_are_drawn_with_text_of_the_page(tab: Any) -> None:
    shown = tab.eval_on_selector_all(
        "figure svg",
        "nodes => nodes.filter(node => node.checkVisibility()).map(node => "
        "node.getBoundingClientRect().width)",
    )
    assert len(shown) >= 2 + 1 + 3  # ROC and DET, reliability, histograms
    assert min(shown) > 150
    fonts = tab.eval_on_selector_all(
        "figure svg text",
        "nodes => [...new Set(nodes.map(node => getComputedStyle(node).fontFamily))]",
    )
    assert len(fonts) == 1
    assert tab.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    assert SHOWN in tab.locator("#results").inner_text()
