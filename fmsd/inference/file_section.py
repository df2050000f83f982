"""What was found in one file, as HTML: verdict, timeline, the most suspicious faces, and facts."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from fmsd.data.spelling import escape_non_utf8
from fmsd.figures.explanations import overlay_heatmap
from fmsd.figures.timeline import Track, format_time, plot_timeline
from fmsd.inference.outcome import FilePrediction, HeatMaps, PersonScore, SuspiciousFace
from fmsd.inference.sentences import FEW_FRAMES, percent, persons_fact
from fmsd.inference.verdict import PersonVerdict, Verdict
from fmsd.metrics.score_meaning import RATES
from fmsd.quoting import printable
from fmsd.report import html

SIDE = 160
"""Side in pixels of the pictures of faces, at most."""

LINES = 6
"""Persons with a line in a timeline, at most: who decides, then those with the highest scores."""

HEAT_MAP = "heat map"
"""The name of a map of which the method is not known."""

BRIGHT = {
    "attention rollout": "what the detector attended to",
    "Grad-CAM": "what raised the score",
}
"""What is bright in a map, by its name."""


def file_section(
    number: int,
    name: str,
    result: FilePrediction,
    verdict: Verdict,
    heat: HeatMaps | None,
    map_name: str,
    video_score: str,
) -> str:
    """The part of the page on one file with a score.

    Args:
        number: of the file on the page.
        name: of the file.
        map_name: what `heat` draws, for people.
        video_score: see `fmsd.metrics.video.aggregate_videos`.
    """
    parts = [
        f'<h3 id="file-{number}">{escape(name)}</h3>',
        verdict_line(verdict),
        html.paragraph(FEW_FRAMES, "warning") if result.share < 0.5 else "",
        _timeline(number, result, verdict),
        _faces(result, heat, map_name),
        html.definition_list(file_facts(result, verdict, video_score)),
    ]
    return f"<article>{''.join(parts)}</article>"


def shown_name(path: str) -> str:
    r"""A path with escapes in place of what cannot be printed or would change the text around it.

    These are bytes that are not UTF-8, control characters, and marks of the direction of writing,
    by which `gpj.exe` could be shown as `exe.jpg`.
    """
    return printable(escape_non_utf8(path))


def verdict_line(verdict: Verdict) -> str:
    """A sentence with the verdict."""
    if verdict.called is None:
        called, rest = "No verdict", f": {verdict.reason}."
    else:
        called = "Called fake" if verdict.called == "fake" else "Not called fake"
        sign = "at or above" if verdict.called == "fake" else "below"
        rest = f": the score {verdict.score:.3f} is {sign} the threshold {verdict.threshold:.3f}"
        rest += f" ({threshold_origin(verdict.at)})."
    if verdict.probability is not None:
        rest += f" Calibrated probability of fake: {format_probability(verdict.probability)}"
        rest += f" (fitted to {verdict.videos.describe()})." if verdict.videos else "."
    line = f'<p class="{verdict_class(verdict)}"><b>{called}</b>{escape(rest)}</p>'
    if verdict.unusual:
        line += html.paragraph(
            "Unusual: this face lies outside of what the run has seen in its validation data, so "
            "neither the score nor the verdict can be relied on.",
            "warning",
        )
    return line


def verdict_class(verdict: Verdict) -> str:
    """The classes of an element with the verdict, for the style of the page."""
    return f"verdict {(verdict.called or 'none').replace(' ', '-')}"


def threshold_origin(at: str) -> str:
    """How a threshold was chosen, as a phrase."""
    if at in RATES:
        return f"at most {100 * RATES[at]:g} % false positives on validation data"
    return "a number that was given"


def format_probability(value: float) -> str:
    """A probability with two decimals; one that is rounded to 0 or 1 is no certainty."""
    return "< 0.01" if value < 0.005 else "> 0.99" if value >= 0.995 else f"{value:.2f}"


def who_decides(result: FilePrediction) -> str:
    """The person whose score is the file's, as a phrase; empty where there is none."""
    person, count = result.decides, len(result.persons)
    if person is None:
        return ""
    if result.kind == "image":
        return "the only face" if count == 1 else f"face {person.person} of {count}"
    name = "the only person" if count == 1 else f"person {person.person} of {count}"
    return f"{name}, {_span(person)}"


def file_facts(result: FilePrediction, verdict: Verdict, video_score: str) -> dict[str, str]:
    """The facts of a file by name."""
    facts = {"score": f"{verdict.score:.3f}: {who_decides(result)}"}
    if result.kind == "video":
        facts["score"] += f"; the {video_score} of the scores of its frames"
        with_face = len({frame.position for frame in result.frames})
        facts["frames"] = f"{result.sampled} looked at, {with_face} with a face"
        if result.damaged:
            facts["frames"] += f", {result.damaged} could not be decoded"
        facts["share"] = (
            f"the person who decides is seen in {percent(result.share)} of the frames with a face"
        )
    if several := persons_fact(verdict):
        facts["several persons"] = several
    items = "" if verdict.videos is None else verdict.videos.noun_of(verdict.level)
    for name, percentile in (
        ("real", verdict.percentile_real),
        ("fake", verdict.percentile_fake),
    ):
        if percentile is not None:
            facts[f"among validation {name}s"] = (
                f"at or above the score of {percentile:.1f} % of the {name} {items}"
            )
    facts["like the validation data"] = {
        True: "no: the face lies outside of what the run has seen there",
        False: "yes: the face is no further from it than 99 % of its own frames",
        None: "not known",
    }[verdict.unusual]
    others = [
        (person, own)
        for person, own in zip(result.persons, verdict.persons, strict=True)
        if person != result.decides
    ]
    noun = "face" if result.kind == "image" else "person"
    for person, own in others[:LINES]:
        facts[f"{noun} {person.person}"] = _other_person(person, own, result.kind)
    if len(others) > LINES:
        facts["further"] = f"{len(others) - LINES} more"
    return facts


def _other_person(person: PersonScore, own: PersonVerdict, kind: str) -> str:
    """The score of a person who does not decide and what it means, as a phrase."""
    text = f"score {person.score:.3f}"
    if own.called is not None:
        text += f", alone {'called fake' if own.called == 'fake' else 'not called fake'}"
    if own.probability is not None:
        text += f", probability of fake {format_probability(own.probability)}"
    if kind == "video":
        text += f"; in {person.frames} frames, {_span(person)}"
    return text + ("" if person.counts else "; seen too briefly to decide")


def _span(person: PersonScore) -> str:
    """When a person is seen."""
    return f"{format_time(person.first)} to {format_time(person.last)}"


def _timeline(number: int, result: FilePrediction, verdict: Verdict) -> str:
    """The scores of each person over time; nothing for an image or a single frame."""
    decides = result.decides
    if decides is None or len({frame.position for frame in result.frames}) < 2:
        return ""
    others = sorted(
        (person for person in result.persons if person != decides),
        key=lambda person: (-person.counts, -person.score),
    )
    shown = [decides, *others][:LINES]
    tracks = {person.person: list[tuple[float, float]]() for person in shown}
    for frame in result.frames:
        if frame.person in tracks:
            tracks[frame.person].append((frame.seconds, frame.score))
    marks = [(face.frame.seconds, face.frame.score) for face in result.suspicious]
    figure = plot_timeline(
        [_track(points) for points in tracks.values()], verdict.threshold, _track(marks)
    )
    caption = "The score of each frame"
    caption += (
        ", and the threshold of the whole video as a dashed line"
        if verdict.threshold is not None
        else ""
    )
    caption += "; circles: the faces below." if marks else "."
    if len(result.persons) > len(shown):
        caption += f" {len(result.persons) - len(shown)} further persons are not drawn."
    legend = "".join(
        f"<li>{html.line_sample(index)}person {person.person}, score {person.score:.3f}</li>"
        for index, person in enumerate(shown)
    )
    element = html.figure_element(figure, f"Scores over time, file {number}", caption)
    return f'<ul class="legend">{legend}</ul>{element}'


def _track(points: Sequence[tuple[float, float]]) -> Track:
    values = np.array(points, np.float64).reshape(-1, 2)
    return Track(values[:, 0], values[:, 1])


def _faces(result: FilePrediction, heat: HeatMaps | None, map_name: str) -> str:
    """The most suspicious faces, each beside its heat map where there is one."""
    faces = result.suspicious
    if not faces:
        return ""
    maps = [None] * len(faces) if heat is None else list(heat(faces))
    figures = [
        _face(face, heat_map, map_name, result.kind)
        for face, heat_map in zip(faces, maps, strict=True)
    ]
    grid = f'<div class="faces">{"".join(figures)}</div>'
    if heat is None:
        return grid
    bright = BRIGHT.get(map_name, "what the detector looked at")
    about = (
        f"Right of each face its {map_name}, as fmsd explain draws it; bright: {bright}. It does "
        "not show what was manipulated."
    )
    return grid + html.paragraph(about, "quiet")


def _face(
    face: SuspiciousFace,
    heat_map: Float[ndarray, "rows columns"] | None,
    map_name: str,
    kind: str,
) -> str:
    frame = face.frame
    place = f"{format_time(frame.seconds)}, frame {frame.position}: " if kind == "video" else ""
    caption = f"{place}{frame.score:.3f}"
    pictures = {"face": face.crop}
    if heat_map is not None:
        drawn = overlay_heatmap(face.crop, heat_map)
        pictures[map_name] = (255 * np.clip(drawn, 0, 1)).round().astype(np.uint8)
    images = "".join(
        f'<img alt="{name}, {escape(caption)}" src="{jpeg_address(pixels)}">'
        for name, pixels in pictures.items()
    )
    if heat_map is not None:
        caption += f"; right: {map_name}"
    return f"<figure><div>{images}</div><figcaption>{escape(caption)}</figcaption></figure>"


def jpeg_address(pixels: UInt8[ndarray, "height width 3"]) -> str:
    """A picture of at most `SIDE` pixels on a side as a data URI."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    output = io.BytesIO()
    image.save(output, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(output.getvalue()).decode()}"
