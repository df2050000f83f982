"""What the terminal says of predictions: where a threshold and a probability come from.

Needs no torch.
"""

from collections.abc import Iterable, Sequence

from fmsd.inference.facts import DetectorFacts
from fmsd.inference.outcome import FilePrediction
from fmsd.inference.verdict import RATES, Level

UNUSUAL = (
    "A face that is unusual lies further from the faces of the validation data than 99 % of these "
    "do from each other: its score means less than the figures here say."
)

LEVEL_NOUNS: dict[Level, str] = {"frame": "frames", "video": "videos"}


def threshold_sentences(facts: DetectorFacts, levels: Iterable[Level], at: str) -> list[str]:
    """Where the thresholds of some levels come from, and how often they are wrong there.

    Args:
        at: the threshold that was asked for, see `fmsd.inference.verdict.judge`.
    """
    if at not in RATES:
        return [f"Scores of at least {at} are called fake, as at={at} asks for."]
    if not facts.meanings:
        return [
            f"The run {facts.name} has no predictions on validation data: its scores are not "
            "calibrated, and nothing is called fake or real unless at=NUMBER gives a threshold."
        ]
    return [threshold_sentence(facts, level, at) for level in levels]


def threshold_sentence(facts: DetectorFacts, level: Level, at: str) -> str:
    """Where the threshold of a level comes from, in one sentence."""
    meaning = facts.meanings[level]
    point, (real, fake) = meaning.points[RATES[at]], meaning.videos
    rate, low, high = meaning.error_rates(RATES[at])[0]
    wrong = (
        f"{point.false_positives} of {point.reals} real {LEVEL_NOUNS[level]} ({percent(rate)}; "
        f"95 % interval over videos {percent(low)} to {percent(high)})"
    )
    data = ", ".join(facts.validation) or "unknown data"
    return (
        f"{'Videos' if level == 'video' else 'Images'} with a score of at least "
        f"{point.threshold:.4f} are called fake ({at}): on {real} real and {fake} fake videos of "
        f"the validation split of {data}, {wrong} and {percent(point.true_positive_rate[0])} of "
        f"the fakes are at or above it; the weights were chosen by select={facts.selection}. Real "
        "means only that a score is lower."
    )


def calibration_sentences(facts: DetectorFacts, levels: Iterable[Level]) -> list[str]:
    """What the calibrated probability is, if there is one for any of the levels."""
    kinds = {
        calibration.kind
        for level in levels
        if level in facts.meanings and (calibration := facts.meanings[level].calibration)
    }
    if not kinds:
        return []
    how = f"calibrated on these data ({', '.join(sorted(kinds - {'none'}))})"
    if kinds == {"none"}:
        how = "itself, as no calibration did better on these data"
    return [
        f"P(fake) is the score {how}, for a file that is as likely real as fake before it is "
        "looked at."
    ]


def percent(share: float) -> str:
    """A share in per cent, with one decimal."""
    return f"{100 * share:.1f} %"


def levels_of(predictions: Sequence[FilePrediction]) -> list[Level]:
    """The levels that the scores of some files are compared on."""
    kinds = {prediction.kind for prediction in predictions if prediction.decides is not None}
    pairs: list[tuple[Level, str]] = [("video", "video"), ("frame", "image")]
    return [level for level, kind in pairs if kind in kinds]
