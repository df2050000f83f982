"""What is said of predictions: where a threshold and a probability come from.

Needs no torch.
"""

from collections.abc import Iterable, Sequence

from fmsd.inference.facts import DetectorFacts
from fmsd.inference.outcome import FilePrediction
from fmsd.inference.verdict import Level, Verdict, threshold_rates, why_no_verdict
from fmsd.metrics.score_meaning import MIN_VIDEOS, RATES, format_rate, selection_sentence

UNUSUAL = (
    "A face that is unusual lies further from the faces of the validation data than 99 % of these "
    "do from each other: its score means less than the figures here say."
)

BOUND = (
    " (1 - (1 - p)^k for k independent ones, p the upper end of the interval of the false positive "
    "rate)"
)
"""Where the largest false positive rate of several persons comes from."""

FEW_FRAMES = (
    "A share below 50 %: the person who decides is seen in less than half of the frames with a "
    "face, so the verdict rests on few frames; look at the other persons, too."
)


def threshold_sentences(facts: DetectorFacts, levels: Iterable[Level], at: str) -> list[str]:
    """Where the thresholds of some levels come from, and how often they are wrong there.

    Args:
        at: the threshold that was asked for, see `fmsd.inference.verdict.judge`.
    """
    if not facts.meanings and at not in RATES:
        return [
            f"Scores of at least {at} are called fake, as at={at} asks for. How often that is "
            "wrong is not known: the run has no predictions on validation data."
        ]
    if not facts.meanings:
        return [
            f"The run {facts.name} has no predictions on validation data: its scores are not "
            "calibrated, and no file gets a verdict without a number of your own as the threshold."
        ]
    return [
        *(threshold_sentence(facts, level, at) for level in levels),
        selection_sentence(facts.selection),
    ]


def threshold_sentence(facts: DetectorFacts, level: Level, at: str) -> str:
    """Where the threshold of a level comes from, or why there is none."""
    meaning = facts.meanings[level]
    items = "Videos" if level == "video" else "Images"
    if reason := why_no_verdict(meaning, at):
        return f"{items} get no verdict: {reason}."
    videos = meaning.videos
    false, true = map(format_rate, threshold_rates(meaning, at))
    if at in RATES:
        point = meaning.points[RATES[at]]
        threshold, origin = f"{point.threshold:.4f}", at
        wrong = (
            f"{point.false_positives} of {point.reals} real {videos.noun_of(level)}, {false} (the "
            "threshold was chosen on these),"
        )
    else:
        threshold, origin = at, given_threshold(at)
        wrong = f"{false} of the real {videos.noun_of(level)}"
    data = ", ".join(facts.validation) or "unknown data"
    return (
        f"{items} with a score of at least {threshold} are called fake ({origin}): on "
        f"{videos.describe()} of the validation split of {data}, {wrong} and "
        f"{true} of the fakes are at or above it (in brackets 95 % "
        f"intervals over {videos.noun}). Not fake means only that a score is lower: it does not "
        "show that a file is real."
    )


def given_threshold(at: str) -> str:
    """That a threshold is a score that was given, as a phrase; what else it may be mistaken for."""
    meant = [name for name, rate in RATES.items() if rate == float(at)]
    mistaken = f", which is a score; the false positive rate is at={meant[0]}" if meant else ""
    return f"as at={at} asks for{mistaken}"


def persons_sentences(verdicts: Sequence[Verdict | None]) -> list[str]:
    """How several persons in a file change its errors; nothing where each has one."""
    several = {
        (verdict.level, verdict.counted): verdict.false_positive_bound
        for verdict in verdicts
        if verdict is not None and verdict.called is not None and verdict.counted > 1
    }
    if not several:
        return []
    parts = [
        f"of real {'videos' if level == 'video' else 'images'} with {count} "
        f"{'persons' if level == 'video' else 'faces'} up to {percent(bound)}"
        for (level, count), bound in sorted(several.items())
        if bound is not None
    ]
    errors = "real files with several are called fake more often than those with one"
    if parts:
        errors = f"{'; '.join(parts[-3:])} are called fake{BOUND}"
    return [
        "A threshold is for one face or person, but the score of a file is the highest of all: "
        f"{errors}. P(fake) and percentiles are those of the person who decides, taken alone."
    ]


def persons_fact(verdict: Verdict) -> str:
    """How the persons of one file change its errors, as a phrase; empty for one person."""
    if verdict.counted < 2:
        return ""
    persons = f"{verdict.counted} {'persons' if verdict.level == 'video' else 'faces'}"
    text = f"the score is the highest of {persons}"
    if verdict.false_positive_bound is None:
        return text
    bound = percent(verdict.false_positive_bound)
    return f"{text}: of real files with {persons} up to {bound} are called fake{BOUND}"


def share_sentences(predictions: Sequence[FilePrediction]) -> list[str]:
    """A warning where the person who decides is seen in few frames; nothing otherwise."""
    return [FEW_FRAMES] if any(prediction.share < 0.5 for prediction in predictions) else []


def calibration_sentences(facts: DetectorFacts, levels: Iterable[Level]) -> list[str]:
    """What the calibrated probability is, or why there is none."""
    meanings = [facts.meanings[level] for level in levels if level in facts.meanings]
    if not meanings:
        return []
    kinds = {meaning.calibration.kind for meaning in meanings if meaning.calibration}
    videos = meanings[0].videos.describe("validation")
    if not kinds:
        return [
            f"There is no P(fake): a calibration needs {MIN_VIDEOS} real and {MIN_VIDEOS} fake "
            f"validation {meanings[0].videos.noun}, and there are {videos}."
        ]
    how = f"calibrated on {videos} ({', '.join(sorted(kinds - {'none'}))})"
    if kinds == {"none"}:
        how = f"itself, as no calibration did better on {videos}"
    return [
        f"P(fake) is the score {how}, for a file that is as likely real as fake before it is "
        "looked at."
    ]


def weights_sentences(facts: DetectorFacts) -> list[str]:
    """A warning of weights that the thresholds were not chosen with; nothing otherwise."""
    if facts.weights == "float32":
        return []
    return [
        f"The weights have 8 bits ({facts.weights}): thresholds and calibration were chosen in "
        "float32, and a file whose score is near the threshold may be called otherwise there."
    ]


def count_files(count: int) -> str:
    """A number of files, as words."""
    return "1 file" if count == 1 else f"{count} files"


def percent(share: float) -> str:
    """A share in per cent, with one decimal."""
    return f"{100 * share:.1f} %"


def levels_of(predictions: Sequence[FilePrediction]) -> list[Level]:
    """The levels that the scores of some files are compared on."""
    kinds = {prediction.kind for prediction in predictions if prediction.decides is not None}
    pairs: list[tuple[Level, str]] = [("video", "video"), ("frame", "image")]
    return [level for level, kind in pairs if kind in kinds]
