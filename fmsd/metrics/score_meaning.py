"""What a score means, as far as it is known without fitting anything: no torch is needed here.

A run's validation data gives a calibration, thresholds, and the scores of both classes, see
`fmsd.metrics.decision`. They travel with an exported model as JSON.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from pydantic import Field
from typing_extensions import TypedDict

from fmsd.json_records import Count, Number

Values = Float64[ndarray, " items"]

Rate = Annotated[str, Field(pattern=r"^0\.\d+$")]
"""A false positive rate, as a key of a JSON object."""

KINDS = {
    "none": "none",
    "temperature": "temperature scaling",
    "platt": "Platt scaling",
    "isotonic": "isotonic regression",
}
"""Kinds of calibration, the simplest first, and their names."""

RATES = {"fpr1": 0.01, "fpr5": 0.05, "fpr10": 0.1}
"""Names of the thresholds that a run keeps, and the false positive rates they are chosen for."""

DEFAULT_AT = "fpr5"
"""The threshold that is used unless another is asked for."""

MIN_VIDEOS = 10
"""Videos of each class below which no calibration is fitted."""

RateInterval = tuple[float, float, float]
"""A rate, and the ends of its 95 % interval."""

PAIR = Field(min_length=2, max_length=2)
"""A list with a value for real items and one for fake ones."""

TRIPLE = Field(min_length=3, max_length=3)
"""A list with the values of `VideoCounts`."""


class VideoCounts(NamedTuple):
    """Numbers of videos; an image counts as a video of one frame, and such a video as an image.

    Args:
        real, fake: numbers of both classes.
        images: how many of all have one frame only.
    """

    real: int
    fake: int
    images: int = 0

    @property
    def noun(self) -> str:
        """What was counted: `videos`, `images`, or `files` where there are both."""
        if not self.images:
            return "videos"
        return "images" if self.images == self.real + self.fake else "files"

    def noun_of(self, level: str) -> str:
        """What has a score at a level: `noun` of videos; of frames `images` or `frames`."""
        if level == "video":
            return self.noun
        return "images" if self.noun == "images" else "frames"

    def describe(self, kind: str = "") -> str:
        """The numbers as words: `7 real and 90 fake files (7 videos, 90 images)`.

        Args:
            kind: an adjective in front of the noun.
        """
        text = f"{self.real} real and {self.fake} fake {kind} {self.noun}".replace("  ", " ")
        if self.noun != "files":
            return text
        return f"{text} ({self.real + self.fake - self.images} videos, {self.images} images)"


@dataclass(frozen=True)
class Calibration:
    """A monotone map from a score to the probability of fake, if both classes are equally likely.

    Args:
        kind: `none`, `temperature`, `platt` or `isotonic`.
        slope, offset: of all kinds but `isotonic`: the logit is multiplied by `slope`, then
            `offset` is added.
        places, heights: of `isotonic`: logits in rising order, and the logits that they are mapped
            to; between them the map is linear, and beyond them constant.
    """

    kind: str
    slope: float = 1.0
    offset: float = 0.0
    places: Sequence[float] = ()
    heights: Sequence[float] = ()

    def __call__(self, score: Values) -> Values:
        """The calibrated probabilities of scores in [0, 1]."""
        logit = to_logit(score)
        if self.kind == "isotonic":
            return to_probability(np.interp(logit, self.places, self.heights))
        return to_probability(self.slope * logit + self.offset)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its errors on the data that it was chosen on.

    Args:
        threshold: scores from it on are called fake.
        false_positives: number of real items at or above the threshold.
        reals: number of real items.
        true_positives: number of fake items at or above the threshold.
        fakes: number of fake items.
    """

    threshold: float
    false_positives: int
    reals: int
    true_positives: int
    fakes: int

    @property
    def false_positive_rate(self) -> tuple[float, float, float]:
        """The rate, and the ends of its 95 % interval."""
        return self.false_positives / self.reals, *wilson(self.false_positives, self.reals)

    @property
    def true_positive_rate(self) -> tuple[float, float, float]:
        """The rate, and the ends of its 95 % interval."""
        return self.true_positives / self.fakes, *wilson(self.true_positives, self.fakes)


@dataclass(frozen=True)
class ScoreMeaning:
    """What the scores of one level mean, by the validation data of a run.

    Args:
        calibration: None where a class has too few videos to fit one.
        losses: by kind of map, its log-loss in cross-validation, in nats.
        before, after: `log_loss`, `brier` and `ece` of the scores and of the calibrated
            probabilities, of items that the map was not fitted to; `after` is slightly optimistic,
            as the kind was chosen by the same losses.
        points: thresholds by false positive rate.
        quantiles: of the scores of each class, real and fake, in rising order.
        videos: numbers of videos; images are among them.
    """

    calibration: Calibration | None
    losses: Mapping[str, float]
    before: Mapping[str, float]
    after: Mapping[str, float]
    points: Mapping[float, OperatingPoint]
    quantiles: tuple[Float64[ndarray, " reals"], Float64[ndarray, " fakes"]]
    videos: VideoCounts

    def percentile(self, score: float, label: int) -> float:
        """The share of a class's validation scores that lie at or below a score, in per cent.

        Args:
            label: 0 for real items, 1 for fake ones.
        """
        values = self.quantiles[label]
        return 100 * float(np.searchsorted(values, score, side="right")) / len(values)

    def error_rates(self, rate: float) -> tuple[RateInterval, RateInterval]:
        """False and true positive rate, on the validation data, of the threshold for a rate.

        The intervals count videos at frame level, too: frames of a video are alike, and an interval
        over them would be too narrow.
        """
        point = self.points[rate]
        return self._with_intervals(
            point.false_positives / point.reals, point.true_positives / point.fakes
        )

    def error_rates_at(self, threshold: float) -> tuple[RateInterval, RateInterval]:
        """As `error_rates`, of any threshold; by `quantiles`, so exact to 0.1 %."""
        false, true = (float((scores >= threshold).mean()) for scores in self.quantiles)
        return self._with_intervals(false, true)

    def _with_intervals(self, false: float, true: float) -> tuple[RateInterval, RateInterval]:
        reals, fakes, _ = self.videos
        return (false, *wilson(false * reals, reals)), (true, *wilson(true * fakes, fakes))

    def no_verdict(self, rate: float) -> str:
        """Why the threshold for a rate gives no verdict, as a phrase; empty where it gives one."""
        few = too_few_reals(rate, self.videos.real, self.videos.noun)
        if few or self.points[rate].true_positives:
            return few
        return f"the threshold {threshold_name(rate)} finds none of the validation fakes"

    def to_json(self) -> dict[str, Any]:
        """The meaning as a JSON object, see `ScoreMeaningRecord`."""
        return asdict(self) | {
            "points": {str(rate): asdict(point) for rate, point in self.points.items()},
            "quantiles": [values.tolist() for values in self.quantiles],
            "videos": list(self.videos),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ScoreMeaning":
        """The meaning in a JSON object that is a `ScoreMeaningRecord`."""
        values = known_keys(content, ScoreMeaningRecord)
        real, fake = (np.asarray(scores, np.float64) for scores in values["quantiles"])
        fitted = values["calibration"]
        return cls(
            **values
            | {
                "calibration": None
                if fitted is None
                else Calibration(**known_keys(fitted, CalibrationRecord)),
                "points": {
                    float(rate): OperatingPoint(**known_keys(point, PointRecord))
                    for rate, point in values["points"].items()
                },
                "quantiles": (real, fake),
                "videos": VideoCounts(*values["videos"]),
            }
        )


class CalibrationRecord(TypedDict):
    """`Calibration` as JSON."""

    kind: Literal["none", "temperature", "platt", "isotonic"]
    slope: Number
    offset: Number
    places: list[Number]
    heights: list[Number]


class PointRecord(TypedDict):
    """`OperatingPoint` as JSON."""

    threshold: Number
    false_positives: Count
    reals: Count
    true_positives: Count
    fakes: Count


class ScoreMeaningRecord(TypedDict):
    """`ScoreMeaning` as JSON."""

    calibration: CalibrationRecord | None
    losses: dict[str, Number]
    before: dict[str, Number]
    after: dict[str, Number]
    points: dict[Rate, PointRecord]
    quantiles: Annotated[list[Annotated[list[Number], Field(min_length=1)]], PAIR]
    videos: Annotated[list[Count], TRIPLE]


def threshold_name(rate: float) -> str:
    """The name of the threshold for a false positive rate: `fpr5` for 0.05."""
    return next((name for name, known in RATES.items() if known == rate), f"fpr{100 * rate:g}")


def too_few_reals(rate: float, reals: int, noun: str = "videos") -> str:
    """Why a false positive rate cannot be had from so few real videos; empty where it can.

    With fewer than one over the rate, a single false positive is already more than the rate.

    Args:
        noun: what they are called, see `VideoCounts.noun`.
    """
    least = round(1 / rate)
    if reals >= least:
        return ""
    name = threshold_name(rate)
    return f"too few real validation {noun} for {name}: {reals} of at least {least}"


def format_rate(rate: RateInterval) -> str:
    """A rate and the ends of its 95 % interval: `5.0 % [2.1, 11.4]`."""
    value, low, high = (100 * part for part in rate)
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def selection_sentence(selection: str) -> str:
    """What the choice of the weights means for figures on the validation data, as a sentence.

    Args:
        selection: the rule by which a run chose its weights, see `fmsd.engine.model_selection`.
    """
    if "oracle" in selection:
        return (
            f"The weights were chosen on test data (select={selection}): results on those data are "
            "optimistic, and errors on new videos are higher."
        )
    if selection == "last":
        return "The weights are those of the last epoch (select=last): no data chose them."
    if selection in ("iid", "leave_one_domain_out"):
        return (
            f"The same validation data chose the weights (select={selection}) and give the figures "
            "here: errors on new videos are somewhat higher."
        )
    return f"The weights were chosen by select={selection}."


def known_keys(content: Mapping[str, Any], record: type) -> dict[str, Any]:
    """The keys of a JSON object that a record names; other versions write others, too."""
    return {key: content[key] for key in record.__annotations__}


def to_logit(score: Values) -> Values:
    """The logit of a probability, in float64; finite for 0 and 1."""
    bounded = np.clip(score, 1e-12, 1 - 1e-12)
    return np.log(bounded) - np.log1p(-bounded)


def to_probability(logit: Values) -> Values:
    """The logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(logit / 2))


def wilson(count: float, total: int, deviations: float = 1.959964) -> tuple[float, float]:
    """The score interval of a share; 95 % by default.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927. It
    holds for independent items: for videos, not for the frames of one video.

    Args:
        count: a fraction of an item is possible, where a share of videos is known by their frames.
    """
    share, square = count / total, deviations**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    spread = share * (1 - share) / total + square / (4 * total**2)
    half = deviations * math.sqrt(spread) / (1 + square / total)
    return max(0.0, centre - half), min(1.0, centre + half)
