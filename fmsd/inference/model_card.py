"""The model card of a published run, written from what the run has recorded and predicted."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fmsd.hub_addresses import Address
from fmsd.inference.card_results import results_section, tested_row
from fmsd.inference.facts import DetectorFacts
from fmsd.metrics.layout import escape_markdown, markdown_table
from fmsd.metrics.score_meaning import ScoreMeaning, format_rate, selection_sentence
from fmsd.models.layouts import PAPERS
from fmsd.report.rows import Row
from fmsd.runs.configuration import read_configuration
from fmsd.runs.evaluations import finished_evaluations
from fmsd.runs.folder import Run
from fmsd.runs.papers import bibliography, cited_papers

NOT_FOR = """\
## What it is not for

- A score is no proof that a face is real or fake, and no such proof can be made of it.
- The results hold for the test data above.
  Other forgeries, cameras, codecs and crops may give other scores, and forgers may work against \
the detector.
- It must not decide about people, alone or as the main reason.
- It finds forged faces.
  It says nothing of voices, of the scene around a face, or of who made a file.
"""

OWN_WEIGHTS = """\
The repository holds what training changed in the backbone, not the backbone's own weights: fmsd \
loads those from timm's repository, or from `base=PATH`, and compares their hash."""

IMPORTED_WEIGHTS = """\
The repository holds all weights of the network, converted to timm's names: fmsd loads no others."""


def model_card(address: Address, run: Run, facts: DetectorFacts, licence: str | None) -> str:
    """The text of a model card, with the metadata that the Hub reads.

    Every result is computed from predictions, as in a report.

    Args:
        address: of the repository.
        facts: of the detector.
        licence: the identifier of a licence; None where none was given.

    Raises:
        InputError: predictions cannot be used, or do not give the recorded results.
    """
    settings, record = read_configuration(run.folder), run.record(complete=True)
    row = tested_row(run)
    name, imported = address.repo.partition("/")[2], record.get("imported")
    sections = [
        f"# {name}\n\n{_summary(settings, record)}\n",
        _what_it_is(settings, record, facts, base_weights(run)),
        _training_data(record),
        results_section(row),
        _meaning(facts),
        _usage(address, IMPORTED_WEIGHTS if imported else OWN_WEIGHTS),
        NOT_FOR,
        _licence(licence, imported),
        _citation(run),
    ]
    metadata = yaml.safe_dump(
        _metadata(name, settings, row, licence), sort_keys=False, allow_unicode=True
    )
    return f"---\n{metadata}---\n\n" + "\n".join(sections)


def _metadata(
    name: str, settings: Mapping[str, Any], row: Row | None, licence: str | None
) -> dict[str, Any]:
    """The metadata of the card, in the Hub's keys."""
    backbone = settings["backbone"]
    metadata: dict[str, Any] = {} if licence is None else {"license": licence}
    if backbone.get("pretrained") and backbone.get("weights") is None and "." in backbone["name"]:
        metadata["base_model"] = f"timm/{backbone['name']}"
    metadata |= {
        "library_name": "fmsd",
        "pipeline_tag": "image-classification",
        "tags": ["deepfake-detection", "face-forgery-detection", *_choices(settings, "method")],
    }
    if row is not None:
        aucs = row.results.filter(metric="auc", level="video")
        metadata["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "deepfake detection"},
                        "dataset": {"type": dataset, "name": dataset},
                        "metrics": [{"type": "roc_auc", "name": "video AUC", "value": value}],
                    }
                    for dataset, value in aucs.select("dataset", "value").iter_rows()
                ],
            }
        ]
    return metadata


def _choices(settings: Mapping[str, Any], *groups: str) -> list[str]:
    choices = settings.get("choices") or {}
    return [str(choices[group]) for group in groups if choices.get(group)]


def _summary(settings: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    if "merged" in record:
        parts = ", ".join(map(escape_markdown, record["merged"]))
        how = f"merged without training from {len(record['merged'])} specialists ({parts})"
    elif "imported" in record:
        about = record["imported"]
        how = (
            f"{escape_markdown(about['detector'])} as published, converted from the file "
            f"{escape_markdown(about['file'])} (SHA-256 `{about['sha256'][:12]}`)"
        )
    else:
        trained = ", ".join(map(escape_markdown, record["origin"]["train"])) or "unknown data"
        how = f"trained on {trained}"
    return (
        f"A detector of forged faces: `{settings['backbone']['name']}`, {how} with fmsd "
        f"{(record.get('versions') or {}).get('fmsd') or ''}".rstrip()
        + ".\nIt gives the face in an image the probability of being fake."
    )


def base_weights(run: Run) -> str:
    """The hash of the backbone's weights that the run began with, of the adapter's description."""
    description = json.loads((run.folder / "adapter.json").read_text(encoding="utf-8"))
    base = description["base"]
    return "not recorded" if base is None else f"SHA-256 `{base['hash'][:12]}`"


def _what_it_is(
    settings: Mapping[str, Any], record: Mapping[str, Any], facts: DetectorFacts, base: str
) -> str:
    """Method, backbone, parameters, and how the weights were chosen."""
    rows = [
        ["backbone", f"`{settings['backbone']['name']}`"],
        *(_published(record["imported"]) if "imported" in record else []),
        *([] if "imported" in record else [["its weights before training", base]]),
        *(
            [group, ", ".join(f"`{choice}`" for choice in _choices(settings, group))]
            for group in ("method", "loss", "merger", "wrapper", "optimizer")
            if _choices(settings, group)
        ),
        ["parameters", f"{record['parameters']:,}"],
        *([] if "imported" in record else [_trained(record)]),
        ["input", f"{settings['backbone']['size']} x {settings['backbone']['size']} pixels"],
        ["weights chosen by", f"`{escape_markdown(record['selection'])}`"],
        *([] if "imported" in record else [["seed", str(record["seed"])]]),
        ["source", f"`{record['revision']}`" if record.get("revision") else "not recorded"],
    ]
    crops = facts.crops
    aligned = "aligned" if crops.align else "not aligned"
    known = "" if facts.crops_known else "; the training data do not say, these are the defaults"
    rows.append(["face crops", f"{crops.size} pixels, margin {crops.margin:g}, {aligned}{known}"])
    return "## What it is\n\n" + _plain_table(["", ""], rows)


def _trained(record: Mapping[str, Any]) -> list[str]:
    """The row with the number of trained parameters."""
    share = record["trainable"] / max(1, record["parameters"])
    return ["trained", f"{record['trainable']:,} ({share:.2%})"]


def _published(about: Mapping[str, Any]) -> list[list[str]]:
    """The rows on the published file of an imported run."""
    return [
        ["detector", escape_markdown(about["detector"])],
        ["trained and published by", f"others than this repository's owner: {_paper(about)}"],
        ["published file", f"{escape_markdown(about['file'])}, SHA-256 `{about['sha256']}`"],
    ]


def _paper(about: Mapping[str, Any]) -> str:
    """The paper of an imported run's format."""
    return PAPERS.get(about["format"], "unknown authors")


def _training_data(record: Mapping[str, Any]) -> str:
    """The datasets with their digests."""
    manifests = record["manifests"]
    parts = manifests.get("train") or manifests.get("validation") or {}
    rows = [
        [
            escape_markdown(name),
            f"{described.get('frames', 0):,}",
            *(f"{(described.get('videos') or {}).get(split, 0):,}" for split in ("train", "val")),
            f"`{described['digest'][:12]}`",
        ]
        for name, described in parts.items()
    ]
    text = "## Training data\n\n"
    if "imported" in record:
        return text + (
            "Unknown: the published file does not say what it was trained on, nor whether the test "
            "frames above are among that.\n"
        )
    if not rows:
        return text + "The record of this run names no training data of its own.\n"
    text += markdown_table(
        ["dataset", "frames", "videos to train", "videos to validate", "digest"], rows
    )
    augment = record["origin"]["augment"]
    return text + (
        "\nA digest is that of the list of frames: with `fmsd index` you can tell whether your "
        f"copy has the same.\nAugmentation: `{escape_markdown(str(augment))}`.\n"
    )


def _meaning(facts: DetectorFacts) -> str:
    """Calibration and thresholds, with the data that they rest on."""
    text = "## What a score means\n\n"
    meaning = facts.meanings.get("video")
    if meaning is None:
        return text + "This run has no validation predictions: no calibration and no thresholds.\n"
    data = "; ".join(
        f"{escape_markdown(name)}: {videos.describe()}" for name, videos in facts.validation.items()
    )
    text += (
        f"Calibration and thresholds rest on the validation data: {data}.\n"
        f"{escape_markdown(selection_sentence(facts.selection))}\n\n"
    )
    text += _calibration(meaning)
    header = ["false positives", "threshold", "on the validation reals", "fakes found"]
    rows = [
        [
            f"{100 * rate:g} %",
            f"{point.threshold:.4f}",
            format_rate(point.false_positive_rate),
            format_rate(point.true_positive_rate),
        ]
        for rate, point in meaning.points.items()
    ]
    return (
        f"{text}\n{markdown_table(header, rows)}\nThresholds are of a video's score, or of an "
        "image's; in brackets 95 % intervals.\nOn other data a threshold has other rates.\n"
    )


def _calibration(meaning: ScoreMeaning) -> str:
    if meaning.calibration is None:
        return f"There are too few validation {meaning.videos.noun} to calibrate the scores.\n"
    names = {"log_loss": "log-loss", "brier": "Brier score", "ece": "calibration error"}
    header = [f"calibration: {meaning.calibration.kind}", *names.values()]
    rows = [
        [label, *(f"{values[key]:.4f}" for key in names)]
        for label, values in (("scores", meaning.before), ("calibrated", meaning.after))
    ]
    return markdown_table(header, rows)


def _usage(address: Address, weights: str) -> str:
    """How to use the run.

    Args:
        weights: which ones the repository holds.
    """
    return f"""\
## How to use it

    fmsd predict run={address} clip.mp4
    fmsd evaluate run={address} data=NAME data.root=PATH
    fmsd verify run={address}

```python
import fmsd

detector = fmsd.load("{address}")
prediction = detector.predict("clip.mp4")
verdict = detector.verdict(prediction, at="fpr5")
if verdict is None:  # no face, or no file that can be read
    print(prediction.status, prediction.message)
else:
    print(verdict.called or verdict.reason, verdict.score, verdict.probability)
```

{weights}
Folders of data are not in `config.yaml`: give your own.
`{Address(address.repo)}@COMMIT` names one version.
"""


def _licence(licence: str | None, imported: Mapping[str, Any] | None) -> str:
    """The licence of the weights.

    Args:
        imported: what is known of the published file of an imported run.
    """
    if imported is not None:
        stated = "None was given" if licence is None else f"`{licence}`"
        return (
            f"## Licence\n\n{stated}, as this repository's owner states.\nThe weights belong to "
            f"those who trained and published them ({_paper(imported)}): their licence holds, "
            "whatever is said here.\n"
        )
    if licence is None:
        return (
            "## Licence\n\nNone was given: ask the owner before you use these weights.\n"
            "Training data and backbone have licences of their own.\n"
        )
    return (
        f"## Licence\n\n`{licence}`, for the weights in this repository.\nTraining data and "
        "backbone have licences of their own.\n"
    )


def _citation(run: Run) -> str:
    papers = cited_papers([run, *finished_evaluations(run)])
    return (
        "## Citation\n\nPlease cite the papers behind this run:\n\n"
        f"```bibtex\n{bibliography(papers, 'fmsd cite').rstrip()}\n```\n"
    )


def _plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of two left-aligned columns."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
