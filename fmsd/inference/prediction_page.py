"""The page of a prediction: one self-contained HTML file for one file or for many.

A table lists all files. Timelines, faces and heat maps are shown of at most `PICTURED` of them, so
that the page of thousands of files can be opened. Needs no torch.
"""

import heapq
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from fmsd.inference.crop_scoring import CROPS_REMEDY
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.file_section import (
    HEAT_MAP,
    HeatMaps,
    file_section,
    format_probability,
    shown_name,
    threshold_origin,
    verdict_class,
    who_decides,
)
from fmsd.inference.outcome import FilePrediction
from fmsd.inference.sentences import count_files, percent, weights_sentences
from fmsd.inference.verdict import Verdict, threshold_rates, why_no_verdict
from fmsd.metrics.score_meaning import (
    KINDS,
    MIN_VIDEOS,
    RATES,
    ScoreMeaning,
    format_rate,
    selection_sentence,
)
from fmsd.report import html
from fmsd.report.html import Section

PICTURED = 24
"""Files with a timeline and faces, at most: those with the highest scores."""

NO_PROOF = (
    "A score is no proof: it says how much a face resembles the fakes that the detector was "
    "trained on, and a real video can have a high one."
)


def render_page(
    results: Sequence[FilePrediction],
    verdicts: Sequence[Verdict | None],
    facts: DetectorFacts,
    heat: HeatMaps | None = None,
    map_name: str = HEAT_MAP,
) -> str:
    """The page as one HTML file that opens without network.

    Args:
        verdicts: of each result; None of a file without a score.
        facts: of the detector.
        heat: computes the heat maps of some faces of one file; None for none.
        map_name: what these are, for people.
    """
    pairs = sorted(
        zip(results, verdicts, strict=True), key=lambda pair: _rank(pair[0]), reverse=True
    )
    folder = common_folder([result.path for result in results])
    scored = [(result, verdict) for result, verdict in pairs if verdict is not None]
    pictured = scored[:PICTURED]
    sections = [Section("files", "Files", _files_table(pairs, folder, len(pictured)))]
    if pictured:
        parts = [
            file_section(
                number, _name(result, folder), result, verdict, heat, map_name, facts.video_score
            )
            for number, (result, verdict) in enumerate(pictured, 1)
        ]
        if len(scored) > len(pictured):
            note = (
                f"Of {len(scored)} files with a score, the {len(pictured)} with the highest scores."
            )
            parts.insert(0, html.paragraph(note, "quiet"))
        sections.append(Section("found", "What was found", "".join(parts)))
    used = list(dict.fromkeys((verdict.level, verdict.at) for _, verdict in scored))
    sections.append(Section("meaning", "What the scores mean", _meaning(facts, used)))
    return html.document(f"Predictions by {shown_name(facts.name)}", _counts(pairs), sections)


def keep_most_suspicious(results: Iterable[FilePrediction]) -> list[FilePrediction]:
    """The results in their order, with faces only of those that a page shows.

    The faces of thousands of files would not fit into memory.
    """
    kept: list[FilePrediction] = []
    best: list[tuple[float, int]] = []
    for index, result in enumerate(results):
        kept.append(result)
        if result.decides is None:
            continue
        heapq.heappush(best, (_rank(result), -index))
        if len(best) > PICTURED:
            _, dropped = heapq.heappop(best)
            kept[-dropped] = replace(kept[-dropped], suspicious=())
    return kept


def _rank(result: FilePrediction) -> float:
    """The place of a file on the page: the higher, the earlier."""
    person = result.decides
    return person.score if person else -1.0 - (result.status == "unreadable")


def _counts(pairs: Sequence[tuple[FilePrediction, Verdict | None]]) -> str:
    """The numbers of files by outcome and by verdict, as a sentence."""
    outcomes = Counter(result.status for result, _ in pairs)
    called = Counter(verdict.called for _, verdict in pairs if verdict and verdict.called)
    parts = [f"{number} {name}" for name, number in outcomes.items()]
    names = {"fake": "called fake", "not fake": "not called fake"}
    verdicts = [f"{called[name]} {text}" for name, text in names.items() if called[name]]
    sentence = f"{count_files(len(pairs))}: {', '.join(parts)}"
    return f"{sentence}; {', '.join(verdicts)}" if verdicts else sentence


def common_folder(paths: Sequence[str]) -> str:
    """The folder that several files lie below, with a slash at its end; empty where there is none.

    The names of the files are then relative to it.
    """
    try:
        shared = os.path.commonpath([Path(path).parent for path in paths])
    except ValueError:  # there are no paths, or absolute and relative ones
        return ""
    folder = f"{shared}/"
    useful = len(paths) > 1 and shared not in ("", "/")
    return folder if useful and all(path.startswith(folder) for path in paths) else ""


def _name(result: FilePrediction, folder: str) -> str:
    return shown_name(result.path.removeprefix(folder))


def _files_table(
    pairs: Sequence[tuple[FilePrediction, Verdict | None]], folder: str, pictured: int
) -> str:
    """The table of all files, the first `pictured` of which have a link to their part."""
    rows = []
    for number, (result, verdict) in enumerate(pairs, 1):
        name = escape(_name(result, folder))
        if number <= pictured:
            name = f'<a href="#file-{number}">{name}</a>'
        details = escape(shown_name(_details(result)))
        rows.append([f"{name}<small>{details}</small>", *_verdict_cells(result, verdict)])
    caption = "The highest score first" + (f"; files below {shown_name(folder)}" if folder else "")
    header = ["file", "verdict", "P(fake)", "score"]
    table = html.sortable_table(escape(caption), header, rows, {0, 1})
    return html.paragraph(NO_PROOF) + table


def _details(result: FilePrediction) -> str:
    """Why a file has no score, or the person who decides, and the share of frames if not all."""
    if result.decides is None or result.share == 1:
        return result.message or who_decides(result)
    return f"{who_decides(result)}, in {percent(result.share)} of the frames with a face"


def _verdict_cells(result: FilePrediction, verdict: Verdict | None) -> list[str]:
    """The cells of verdict, probability and score."""
    if verdict is None:
        return [f'<td class="text">{result.status}</td>', "<td>-</td>", "<td>-</td>"]
    called = verdict.called or "no verdict"
    unusual = "<small>unusual</small>" if verdict.unusual else ""
    probability = "<td>-</td>"
    if verdict.probability is not None:
        text = escape(format_probability(verdict.probability))
        probability = f'<td data-value="{verdict.probability:.9g}">{text}</td>'
    return [
        f'<td class="text {verdict_class(verdict)}"><b>{called}</b>{unusual}</td>',
        probability,
        f'<td data-value="{verdict.score:.9g}">{verdict.score:.3f}</td>',
    ]


def _meaning(facts: DetectorFacts, used: Sequence[tuple[str, str]]) -> str:
    """What the scores rest on: validation data, thresholds and calibration of each level.

    Args:
        used: level and threshold of the verdicts on this page.
    """
    name = shown_name(facts.name)
    if facts.meanings:
        body = _validation(facts, used)
    else:
        body = html.paragraph(
            f"{name} has no predictions of validation data: there is no threshold that such data "
            "chose, no calibrated probability and no percentile."
        )
    if not facts.crops_known:
        body += html.paragraph(
            f"The training data of {name} do not say how their faces were cropped. Here they were "
            f"cropped to {facts.crops.size} pixels with a margin of {facts.crops.margin:g}; if the "
            f"training data were cropped otherwise, the scores mean little: {CROPS_REMEDY}.",
            "warning",
        )
    for sentence in weights_sentences(facts):
        body += html.paragraph(sentence, "warning")
    return body


def _validation(facts: DetectorFacts, used: Sequence[tuple[str, str]]) -> str:
    """The validation data, and what follows from them."""
    data = "; ".join(
        f"{shown_name(name)}: {videos.describe()}" for name, videos in facts.validation.items()
    )
    body = html.definition_list(
        {"validation data": data, "weights chosen by": f"select={facts.selection}"}
    )
    for level, at in used:
        if (meaning := facts.meanings.get(level)) is not None:
            title = "Videos" if level == "video" else "Images"
            body += f"<h3>{title}</h3>" + html.definition_list(_level_facts(meaning, level, at))
    return body + html.paragraph(
        f"{selection_sentence(facts.selection)} Thresholds, calibration and percentiles follow "
        "from the validation data alone. In brackets are 95 % intervals over videos, of which an "
        "image is one. On files from elsewhere, errors can be many times as frequent: fmsd "
        "evaluate counts them on test datasets."
    )


def _level_facts(meaning: ScoreMeaning, level: str, at: str) -> dict[str, str]:
    """Threshold with its errors, and calibration, by name."""
    names = {}
    items = meaning.videos.noun_of(level)
    if reason := why_no_verdict(meaning, at):
        names["threshold"] = f"no verdict: {reason}"
    else:
        false, true = map(format_rate, threshold_rates(meaning, at))
        counts = [f"{false} of the real {items}", f"{true} of the fake {items}"]
        names["threshold"] = f"{at}: {threshold_origin(at)}"
        if at in RATES:
            point = meaning.points[RATES[at]]
            counts = [
                f"{point.false_positives} of {point.reals} real {items}, {false}",
                f"{point.true_positives} of {point.fakes} fake {items}, {true}",
            ]
            names["threshold"] = f"{point.threshold:.4f}: {threshold_origin(at)}"
        names["false positives"], names["detected"] = counts
    if meaning.calibration is None:
        names["calibration"] = (
            f"none: it needs {MIN_VIDEOS} real and {MIN_VIDEOS} fake validation "
            f"{meaning.videos.noun}"
        )
    else:
        before, after = meaning.before["log_loss"], meaning.after["log_loss"]
        names["calibration"] = (
            f"{KINDS[meaning.calibration.kind]}, chosen by cross-validation over the validation "
            f"{meaning.videos.noun}; log-loss {before:.3f} before and {after:.3f} after (0.693: "
            "the scores say nothing; the value after is slightly optimistic, as the kind was "
            "chosen by the same figures). The probability is that of a fake if fakes and reals are "
            "equally frequent"
        )
    return names
