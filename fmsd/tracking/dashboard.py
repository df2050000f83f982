"""The dashboard of a Weights & Biases project: methods by dataset, cost, robustness."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import wandb

from fmsd.errors import InputError, reason
from fmsd.tracking.publish import VARIANT
from fmsd.tracking.wandb import RESULTS, SEVERITY, logged_in

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace


def dashboard(entity: str, project: str = "fmsd", name: str = "Across datasets") -> str:
    """Saves a new view of a project's runs, built from what they have logged.

    Args:
        entity: the user or team that owns the project.
        project: name of the project.
        name: name of the view.

    Returns:
        The address of the view.

    Raises:
        InputError: a package or the API key is missing, no results were logged, or the service
            cannot be reached.
    """
    check_installed()
    if not logged_in():
        raise InputError(
            "fmsd dashboard saves its view on Weights & Biases, where nobody is logged in",
            "run wandb login, or set WANDB_API_KEY",
        )
    try:
        view = build_workspace(entity, project, name, logged_keys(entity, project)).save()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The view of {entity}/{project} cannot be saved ({reason(error).rstrip('.')})",
            "check entity=, project= and the network",
        ) from error
    print(f"The dashboard lies at {view.url}")
    return view.url


def check_installed() -> None:
    """Checks that the package for views is installed."""
    try:
        import wandb_workspaces.workspaces  # noqa: F401, PLC0415  an extra
    except ImportError as error:
        raise InputError(
            "fmsd dashboard needs the package wandb-workspaces",
            "install it with: pip install 'fmsd[dashboard]'",
        ) from error


def logged_keys(entity: str, project: str) -> set[str]:
    """The names of all values that the runs of a project have logged."""
    return {
        key
        for run in wandb.Api().runs(f"{entity}/{project}", lazy=False)
        for key in run.summary_metrics
    }


def build_workspace(entity: str, project: str, name: str, keys: Collection[str]) -> "Workspace":
    """Builds a view: video AUC by variant and dataset, results, cost, robustness and training.

    A bar is the mean over the runs of a variant, see `fmsd.tracking.publish.variant_name`.

    Args:
        keys: names of the logged values, see `fmsd.tracking.values`.

    Raises:
        InputError: no run has logged a result.
    """
    from wandb_workspaces import expr  # noqa: PLC0415  an extra
    from wandb_workspaces.workspaces import (  # noqa: PLC0415
        RunsetSettings,
        Workspace,
        WorkspaceSettings,
    )

    aucs = {
        dataset: f"test/{dataset}/video_auc"
        for dataset in matching_datasets(keys, r"test/(.+)/video_auc")
    }
    if not aucs:
        raise InputError(
            f"No run in {entity}/{project} has logged a result",
            "train with logger=wandb, and upload what was offline with wandb sync",
        )
    columns = [
        "run:displayName",
        "config:select.value",
        "config:choices.value.protocol",
        "summary:cost/trainable",
    ]
    for dataset, auc in aucs.items():
        columns += [f"summary:{auc}", f"summary:stamp/{dataset}/video"]
    return Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=build_sections(aucs, matching_datasets(keys, r"corruptions/(.+)/mean/video_auc")),
        settings=WorkspaceSettings(max_runs=100),
        runset_settings=RunsetSettings(groupby=[expr.Config(VARIANT)], pinned_columns=columns),
    )


def build_sections(aucs: Mapping[str, str], corrupted: Sequence[str]) -> "list[Section]":
    """Builds the sections of a view.

    Args:
        aucs: the name of the video AUC of each dataset.
        corrupted: datasets with robustness curves.
    """
    from wandb_workspaces.reports import v2 as panels  # noqa: PLC0415  an extra
    from wandb_workspaces.workspaces import Section, SectionLayoutSettings  # noqa: PLC0415

    grouped = {
        "groupby": panels.Config(VARIANT),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
    }
    bars = [panels.BarPlot(title="Video AUC", metrics=[*aucs.values()], range_x=(0, 1), **grouped)]
    bars += [
        panels.BarPlot(title=f"Video AUC on {dataset}", metrics=[auc], range_x=(0, 1), **grouped)
        for dataset, auc in aucs.items()
    ]
    costs = [
        panels.ScatterPlot(
            title=f"Video AUC on {dataset} by trainable parameters",
            x=panels.SummaryMetric("cost/trainable"),
            y=panels.SummaryMetric(auc),
            log_x=True,
        )
        for dataset, auc in aucs.items()
    ]
    curves = [
        panels.LinePlot(
            title=f"Video AUC on {dataset} by severity, mean over corruptions",
            x=SEVERITY,
            y=[f"corruptions/{dataset}/mean/video_auc"],
            title_x="severity",
            **grouped,
        )
        for dataset in corrupted
    ]
    training = [
        panels.LinePlot(title=key, x="trainer/global_step", y=[key], **grouped)
        for key in ("train/loss", "val/video_auc")
    ]
    sections = {
        "Datasets": bars,
        "Results": [panels.WeavePanelSummaryTable(table_name=RESULTS)],
        "Cost": costs,
        **({"Robustness": curves} if curves else {}),
        "Training": training,
    }
    layout = SectionLayoutSettings(2, 2)
    return [
        Section(name=title, panels=section, is_open=True, layout_settings=layout)
        for title, section in sections.items()
    ]


def matching_datasets(keys: Iterable[str], pattern: str) -> list[str]:
    """The sorted datasets in the names that match a pattern with one group."""
    return sorted({match[1] for key in keys if (match := re.fullmatch(pattern, key))})
