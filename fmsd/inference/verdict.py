"""What a prediction of a file amounts to: called fake at a threshold or not, and how sure that is.

Needs no torch.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fmsd.errors import InputError
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.outcome import FilePrediction
from fmsd.metrics.score_meaning import (
    DEFAULT_AT,
    RATES,
    OperatingPoint,
    RateInterval,
    ScoreMeaning,
    VideoCounts,
)

Level = Literal["frame", "video"]

Called = Literal["fake", "not fake"]
"""What a file is called: below the threshold it is not called fake, which does not make it real."""

OWN_NUMBER = "a number of your own as the threshold"
"""How messages name what is `at=NUMBER` in a command and `threshold=NUMBER` in Python."""


@dataclass(frozen=True)
class PersonVerdict:
    """What the score of one person means, taken alone.

    Args:
        person: its number.
        called: `fake` or `not fake`; None without a threshold.
        probability: the calibrated probability of fake; None without a calibration.
    """

    person: int
    called: Called | None
    probability: float | None


@dataclass(frozen=True)
class Verdict:
    """What the score of a file means.

    Args:
        score: of the person who decides, a probability of fake that is not calibrated.
        level: `frame` for an image and `video` for a video: which validation scores it is compared
            with.
        at: the threshold that was asked for: `fpr1`, `fpr5`, `fpr10`, or a number.
        threshold: scores from it on are called fake; None where there is none to be had.
        point: the errors of the threshold on the validation data; None where it is a number, or
            where the run has no threshold.
        called: `fake` or `not fake`; None without a threshold.
        reason: why there is no threshold, and what gives one; empty where there is one.
        probability: the calibrated probability of fake, if both classes are equally likely; None
            where the run has no calibration.
        percentile_real, percentile_fake: the share in per cent of the validation reals and fakes
            whose score is not above the file's; None where the run has no validation scores.
        unusual: whether the face lies outside of what the run has seen in its validation data; None
            where this is not known.
        counted: number of persons of whom the highest score is the file's.
        false_positive_bound: an upper bound of the false positive rate of files in which `counted`
            persons count: 1 - (1 - p)^`counted`, where p is the upper end of the 95 % interval of
            the rate of one person, and persons are independent; None where p is not known.
        videos: numbers of validation videos; None where there are none.
        persons: what the score of each person means, in the order of the prediction's.
    """

    score: float
    level: Level
    at: str
    threshold: float | None
    point: OperatingPoint | None
    called: Called | None
    reason: str
    probability: float | None
    percentile_real: float | None
    percentile_fake: float | None
    unusual: bool | None
    counted: int
    false_positive_bound: float | None
    videos: VideoCounts | None
    persons: tuple[PersonVerdict, ...]


def check_at(at: str | float) -> str:
    """The name of a threshold, or the number as a text.

    Raises:
        InputError: it is neither a name in `RATES` nor a number from 0 to 1.
    """
    text = str(at).strip()
    if text in RATES:
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        names = ", ".join(RATES)
        remedy = f"give one of {names}, or a number from 0 to 1"
        if meant := [name for name, rate in RATES.items() if number == 100 * rate]:
            remedy = f"for at most {text} % false positives give at={meant[0]}"
        raise InputError(f"at={text} is no threshold", remedy)
    return text


def threshold_rates(meaning: ScoreMeaning, at: str) -> tuple[RateInterval, RateInterval]:
    """False and true positive rate of a threshold on the validation data, with their intervals.

    Args:
        at: the threshold, see `check_at`.
    """
    return meaning.error_rates(RATES[at]) if at in RATES else meaning.error_rates_at(float(at))


def judge(
    prediction: FilePrediction,
    facts: DetectorFacts,
    at: str = DEFAULT_AT,
    unusual_limit: float | None = None,
) -> Verdict | None:
    """What the score of a file means; None for a file without a score.

    Args:
        at: `fpr1`, `fpr5` or `fpr10`: the threshold at which at most 1, 5 or 10 % of the validation
            reals are called fake; or a number as a text, the threshold itself.
        unusual_limit: the distance of features from which a face is unusual; None where unknown.

    Raises:
        InputError: `at` is no threshold.
    """
    at = check_at(at)
    person = prediction.decides
    if person is None:
        return None
    level: Level = "frame" if prediction.kind == "image" else "video"
    meaning = facts.meanings.get(level)
    point = meaning.points.get(RATES[at]) if meaning and at in RATES else None
    reason = why_no_verdict(meaning, at)
    threshold = None if reason else point.threshold if point else float(at)
    counted = sum(each.counts for each in prediction.persons)
    bound = None
    if meaning and not reason:
        bound = 1 - (1 - threshold_rates(meaning, at)[0][2]) ** counted
    return Verdict(
        person.score,
        level,
        at,
        threshold,
        point,
        called(person.score, threshold),
        reason,
        calibrated(meaning, person.score),
        meaning.percentile(person.score, 0) if meaning else None,
        meaning.percentile(person.score, 1) if meaning else None,
        is_unusual(prediction.distance, unusual_limit),
        counted,
        bound,
        meaning.videos if meaning else None,
        tuple(
            PersonVerdict(
                each.person, called(each.score, threshold), calibrated(meaning, each.score)
            )
            for each in prediction.persons
        ),
    )


def why_no_verdict(meaning: ScoreMeaning | None, at: str) -> str:
    """Why a threshold gives no verdict, and which do, as a phrase; empty where it gives one.

    Args:
        meaning: of the scores of a level; None where the run has no validation predictions.
        at: the threshold, see `check_at`.
    """
    if at not in RATES:
        return ""
    if meaning is None or RATES[at] not in meaning.points:
        return f"the run has no threshold of validation data; {OWN_NUMBER} gives a verdict"
    reason = meaning.no_verdict(RATES[at])
    if not reason:
        return ""
    others = [
        f"at={name}"
        for name, rate in RATES.items()
        if rate in meaning.points and not meaning.no_verdict(rate)
    ]
    return f"{reason}; {' or '.join([*others, OWN_NUMBER])} gives a verdict"


def called(score: float, threshold: float | None) -> Called | None:
    """What a score is called at a threshold; None without one."""
    return None if threshold is None else "fake" if score >= threshold else "not fake"


def calibrated(meaning: ScoreMeaning | None, score: float) -> float | None:
    """The calibrated probability of a score; None without a calibration."""
    if meaning is None or meaning.calibration is None:
        return None
    return float(meaning.calibration(np.array([score]))[0])


def is_unusual(distance: float, limit: float | None) -> bool | None:
    """Whether a distance exceeds the limit; None where either is unknown."""
    return None if limit is None or math.isnan(distance) else distance > limit
