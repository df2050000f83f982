"""The page of a prediction: what it says, that it is bounded and harmless, and how it looks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from fmsd.data.extraction.faces import YuNet
from fmsd.figures.timeline import MAX_POINTS, Track, format_time, plot_timeline, summarise_track
from fmsd.inference.crop_scoring import CropScores, CropSettings
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.file_section import format_probability, shown_name
from fmsd.inference.media import Sampling
from fmsd.inference.outcome import FilePrediction, FrameScore, PersonScore, SuspiciousFace
from fmsd.inference.prediction_page import (
    PICTURED,
    common_folder,
    keep_most_suspicious,
    render_page,
)
from fmsd.inference.predictor import Predictor
from fmsd.inference.sentences import FEW_FRAMES
from fmsd.inference.verdict import OWN_NUMBER, judge
from fmsd.metrics.decision import score_meanings
from fmsd.metrics.score_meaning import VideoCounts, format_rate
from tests.films import film, shot
from tests.pages import CONTRAST, Outline, quiet_tab
from tests.surroundings import python_path

HOSTILE = "a<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>.mp4"


def known(**changes: object) -> DetectorFacts:
    """The facts of a detector with a validation split of 40 videos of three frames."""
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(40) % 2, 3)
    validation = pl.DataFrame(
        {
            "dataset": "faces",
            "video": np.repeat([f"v{number}" for number in range(40)], 3),
            "label": label,
            "logit": generator.normal(size=120) + 3 * label - 1.5,
        }
    )
    facts = DetectorFacts(
        "<b>run</b>",
        224,
        CropSettings(),
        True,
        "mean",
        {"<i>faces</i>": VideoCounts(20, 20)},
        "iid",
        score_meanings(validation),
    )
    return replace(facts, **changes)  # pyright: ignore[reportArgumentType]


def found(path: str, score: float, frames: int = 3, faces: int = 2) -> FilePrediction:
    """A video with one person whose frames all have one score."""
    scores = [
        FrameScore(position, position / 2, 1, (0.0, 0.0, 9.0, 9.0), score, 0.5)
        for position in range(frames)
    ]
    crop = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    return FilePrediction(
        path,
        "scored",
        kind="video",
        sampled=frames,
        frames=scores,
        persons=[PersonScore(1, frames, 0.0, (frames - 1) / 2, score, True)],
        suspicious=[SuspiciousFace(frame, crop) for frame in scores[:faces]],
    )


def page_of(*results: FilePrediction, facts: DetectorFacts | None = None, **how: Any) -> str:
    facts = facts or known()
    limit = how.pop("limit", None)
    return render_page(
        results, [judge(result, facts, unusual_limit=limit) for result in results], facts, **how
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two persons with a hostile name, an image, a film of nobody, and no medium."""
    place = tmp_path_factory.mktemp("media")
    two = shot((400, 200), [(1, 10, 20, 120), (2, 200, 10, 180)])
    film(place / "two.mp4", [np.roll(two, number, axis=0) for number in range(12)])
    (place / "two.mp4").rename(place / HOSTILE.replace("/", "_"))
    cv2.imwrite(str(place / "one.png"), shot((300, 200), [(3, 60, 10, 180)])[..., ::-1])
    film(place / "empty.mp4", [np.full((120, 160, 3), 128, np.uint8)] * 3)
    (place / "text.mp4").write_text("no film", encoding="utf-8")

    def score(crops: np.ndarray) -> CropScores:
        return CropScores(crops[..., 0].mean((1, 2)) / 255, crops[..., 1].mean((1, 2)) / 255)

    predictor = Predictor(score, YuNet(), sampling=Sampling(6))
    results = [predictor.predict(path) for path in sorted(place.iterdir())]
    assert sorted(result.status for result in results) == [
        *("no face", "scored", "scored", "unreadable")
    ]
    text = page_of(
        *results,
        limit=0.1,
        heat=lambda faces: [face.crop[..., 0] for face in faces],
        map_name="Grad-CAM",
    )
    (place / "report.html").write_text(text, encoding="utf-8")
    return place / "report.html"


@pytest.fixture
def tab(browser: Any, page: Path) -> Iterator[Any]:
    with quiet_tab(browser, page) as opened:
        yield opened


def test_the_page_is_whole_and_hostile_names_are_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert all(address.startswith(("#", "data:")) for address in outline.addresses)
    anchors = {address[1:] for address in outline.addresses if address.startswith("#")}
    assert anchors <= set(outline.ids)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "<b>run</b>" not in text
    assert "<i>faces</i>" not in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(tab: Any, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    lowest = tab.evaluate(CONTRAST)[:5]
    assert lowest[0][0] >= 4.5, lowest
    assert tab.locator("#files tbody tr").count() == 4
    assert HOSTILE.replace("/", "_") in tab.locator("#files").inner_text()
    assert tab.locator("article").count() == 2
    assert tab.locator("article svg[role=img]").count() == 1  # an image has no timeline
    assert tab.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    assert tab.locator("article .faces img").count() == 2 * (6 + 1)
    for width in (1300, 500):
        tab.set_viewport_size({"width": width, "height": 800})
        cut = "[...document.querySelectorAll('figure, .scroll')]"
        assert tab.evaluate(f"{cut}.filter(box => box.scrollWidth > box.clientWidth).length") == 0
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_outcomes_and_facts_are_said(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for phrase in (
        "4 files: 2 scored, 1 no face, 1 unreadable",
        "A score is no proof",
        "of 2, 0:00 to 0:00.4",
        "the only face",
        '<td class="text">unreadable</td>',
        "is a text, and no video; leave it out",
        "; right: Grad-CAM</figcaption>",
        "Right of each face its Grad-CAM, as fmsd explain draws it; bright: what raised the score",
        "<small>unusual</small>",
        "5 % false positives on validation data",
        "20 real and 20 fake videos",
        "select=iid",
        "of 20 real videos",
        "of 60 real frames",
        "95 % intervals over videos",
        "errors on new videos are somewhat higher",
        "fitted to 20 real and 20 fake videos",
        "the score is the highest of 2 persons: of real files with 2 persons up to",
        "chosen by cross-validation",
        "outside of what the run has seen",
        "among validation reals",
        "among validation fakes",
    ):
        assert phrase in text, phrase


def test_what_is_not_known_is_said() -> None:
    bare = known(meanings={}, validation={}, crops_known=False)
    text = page_of(found("a.mp4", 0.9), facts=bare)
    assert "No verdict</b>: the run has no threshold of validation data; a number" in text
    assert "has no predictions of validation data" in text
    assert "do not say how their faces were cropped" in text
    assert "<dd>not known</dd>" in text
    given = render_page([found("a", 0.7)], [judge(found("a", 0.7), known(), "0.4")], known())
    assert "Called fake" in given
    below = render_page([found("a", 0.3)], [judge(found("a", 0.3), known(), "0.4")], known())
    assert '<p class="verdict not-fake"><b>Not called fake</b>' in below
    assert "1 scored; 1 not called fake" in below
    false, true = map(format_rate, known().meanings["video"].error_rates_at(0.4))
    assert "<dd>0.4: a number that was given</dd>" in given
    assert f"<dd>{false} of the real videos</dd>" in given
    assert f"<dd>{true} of the fake videos</dd>" in given


def test_few_reals_and_few_frames_are_said() -> None:
    text = render_page([found("a", 0.7)], [judge(found("a", 0.7), known(), "fpr1")], known())
    reason = "too few real validation videos for fpr1: 20 of at least 100"
    assert f"No verdict</b>: {reason}; at=fpr5 or at=fpr10 or {OWN_NUMBER} gives a verdict" in text
    assert f"no verdict: {reason}" in text[text.index('id="meaning"') :]
    assert FEW_FRAMES not in text
    persons = [PersonScore(n, 1, float(n), float(n), 0.3 + n / 9, True) for n in (1, 2, 3)]
    shots = [FrameScore(n, float(n), n, (0.0, 0.0, 9.0, 9.0), 0.3 + n / 9, 0.5) for n in (1, 2, 3)]
    cut = replace(found("a", 0.7), frames=shots, persons=persons)
    text = page_of(cut)
    assert FEW_FRAMES in text
    assert "seen in 33.3 % of the frames with a face" in text
    assert "alone called " in text


def test_a_page_of_many_files_is_bounded_and_shows_the_most_suspicious() -> None:
    generator = np.random.default_rng(0)
    scores = generator.permutation(300) / 300
    results = keep_most_suspicious(
        found(f"clips/{number}.mp4", float(score)) for number, score in enumerate(scores)
    )
    assert [result.path for result in results] == [f"clips/{number}.mp4" for number in range(300)]
    highest = {f"clips/{number}.mp4" for number in np.argsort(scores)[-PICTURED:]}
    assert {result.path for result in results if result.suspicious} == highest
    text = page_of(*results)
    assert text.count("<article>") == PICTURED
    assert text.count("<tr>") == 301
    assert text.index("clips/") > 0
    assert len(text) < 2_000_000
    shown = text[text.index('id="found"') : text.index('id="meaning"')]
    assert all(f">{path.removeprefix('clips/')}</h3>" in shown for path in highest)


def test_the_heat_maps_are_asked_for_shown_faces_alone() -> None:
    asked = []

    def heat(faces: Any) -> list[np.ndarray]:
        asked.append(len(faces))
        return [np.eye(4) for _ in faces]

    results = [found(str(number), 0.5, faces=number % 3) for number in range(PICTURED + 5)]
    page_of(*results, heat=heat)
    assert len(asked) <= PICTURED
    assert 0 not in asked


def test_names_lie_below_the_folder_that_files_share() -> None:
    assert common_folder(["/a/b/1.mp4", "/a/b/c/2.mp4"]) == "/a/b/"
    assert common_folder(["x/1.mp4", "x/2.mp4"]) == "x/"
    for paths in (["/a/1.mp4"], ["/a/1.mp4", "b/2.mp4"], ["/a/1", "/b/2"], ["1", "2"]):
        assert common_folder(paths) == ""


def test_names_that_would_mislead_are_escaped() -> None:
    assert shown_name("ü b.mp4") == "ü b.mp4"
    assert shown_name("a\u202egpj.exe") == "a\\u202egpj.exe"
    assert shown_name("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    odd = os.fsdecode(b"\xff.mp4")
    assert shown_name(odd) == "\\xff.mp4"
    assert page_of(found(odd, 0.3)).encode()


def test_no_probability_is_shown_as_certain() -> None:
    shown = [format_probability(value) for value in (0.0, 0.0049, 0.005, 0.5, 0.994, 0.995, 1.0)]
    assert shown == ["< 0.01", "< 0.01", "0.01", "0.50", "0.99", "> 0.99", "> 0.99"]


def test_a_timeline_is_bounded_and_broken_where_nobody_is_seen() -> None:
    seconds = np.array([0.0, 1, 2, 3, 10, 11])
    track = Track(seconds, seconds / 20)
    figure = plot_timeline([track], 0.5, Track(seconds[:1], seconds[:1]))
    drawn = np.asarray(figure.axes[0].lines[0].get_xdata())
    assert np.isnan(drawn[4])
    assert np.array_equal(drawn[~np.isnan(drawn)], seconds)
    long = Track(np.arange(90_000) / 25, np.random.default_rng(0).random(90_000))
    middle, low, mean, high = summarise_track(long)
    assert len(middle) == MAX_POINTS
    assert ((low <= mean) & (mean <= high)).all()
    assert low.min() == long.scores.min()
    assert high.max() == long.scores.max()
    assert mean.mean() == pytest.approx(long.scores.mean())


@pytest.mark.parametrize(
    ("scores", "threshold"), [((0.49, 0.51), 0.52), ((0.001, 0.999), None), ((0.3, 0.3), 0.3)]
)
def test_all_scores_and_the_threshold_lie_within_the_axis(
    scores: tuple[float, float], threshold: float | None
) -> None:
    track = Track(np.arange(2.0), np.array(scores))
    low, high = plot_timeline([track], threshold, track).axes[0].get_ylim()
    assert all(low < value < high for value in (*scores, threshold) if value is not None)
    assert high - low >= 0.0999
    assert low >= -0.05
    assert high <= 1.05


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (4.5, "0:04.5"), (59.96, "1:00"), (61, "1:01"), (3723, "1:02:03")],
)
def test_times_are_written_as_players_do(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_the_page_needs_no_torch() -> None:
    lines = "import sys; sys.modules['torch'] = None; import fmsd.inference.prediction_page"
    environment = {**os.environ, "PYTHONPATH": python_path()}
    subprocess.run([sys.executable, "-c", lines], check=True, env=environment)
