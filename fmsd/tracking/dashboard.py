"""The dashboard of a project on Weights & Biases: methods against test datasets, AUC against cost, and robustness."""

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import wandb

from fmsd.errors import InputError, reason
from fmsd.tracking.publish import VARIANT
from fmsd.tracking.wandb import RESULTS, SEVERITY, logged_in

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def dashboard(entity: str, project: str = "fmsd", name: str = "Across datasets") -> str:
    """Saves a view of a project's runs, built from what they have logged, and returns its address. Each call makes a view of its own.

    Args:
        entity: the user or team that the project belongs to.

    Raises:
        InputError: a package or a key is missing, there is nothing to show, or the service cannot
            be reached.
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
        told = reason(error).rstrip(".")
        raise InputError(
            f"The view of {entity}/{project} cannot be saved ({told})",
            "check entity=, project= and the network",
        ) from error
    print(f"The dashboard lies at {view.url}")
    return view.url


def check_installed() -> None:
    """Looks for the package that makes views.

    Raises:
        InputError: it is not installed.
    """
    try:
        import wandb_workspaces.workspaces  # noqa: F401, PLC0415  an extra
    except ImportError as error:
        raise InputError(
            "fmsd dashboard needs the package wandb-workspaces",
            "install it with: pip install 'fmsd[dashboard]'",
        ) from error


def logged_keys(entity: str, project: str) -> set[str]:
    """The names of everything that the runs of a project have logged."""
    return {
        key
        for run in wandb.Api().runs(f"{entity}/{project}", lazy=False)
        for key in run.summary_metrics
    }


def build_workspace(entity: str, project: str, name: str, keys: Collection[str]) -> "Workspace":
    """A view of a project: video AUC of every variant on every dataset, the result tables, AUC against what learns, robustness, and training.

    A variant is what `fmsd.tracking.publish.variant_name` says: a bar is the mean of its runs.

    Args:
        keys: what the runs have logged, see `fmsd.tracking.publish`.

    Raises:
        InputError: no run has logged a result.
    """
    from wandb_workspaces import expr  # noqa: PLC0415  an extra, as the next two are
    from wandb_workspaces.reports import v2 as panels  # noqa: PLC0415
    from wandb_workspaces.workspaces import (  # noqa: PLC0415
        RunsetSettings,
        Section,
        SectionLayoutSettings,
        Workspace,
        WorkspaceSettings,
    )

    tested, corrupted = (
        matching_datasets(keys, r"test/(.+)/video_auc"),
        matching_datasets(keys, r"corruptions/(.+)/mean/video_auc"),
    )
    if not tested:
        raise InputError(
            f"No run in {entity}/{project} has logged a result",
            "train with logger=wandb, and upload what was offline with wandb sync",
        )
    aucs = {dataset: f"test/{dataset}/video_auc" for dataset in tested}
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
            title=f"Video AUC on {dataset} by what learns",
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
    return Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            Section(
                name=title, panels=own, is_open=True, layout_settings=SectionLayoutSettings(2, 2)
            )
            for title, own in sections.items()
        ],
        settings=WorkspaceSettings(max_runs=100),
        runset_settings=RunsetSettings(
            groupby=[expr.Config(VARIANT)],
            pinned_columns=[
                *(
                    "run:displayName",
                    "config:select.value",
                    "config:choices.value.protocol",
                    "summary:cost/trainable",
                ),
                *(
                    f"summary:{key}"
                    for dataset, auc in aucs.items()
                    for key in (auc, f"stamp/{dataset}/video")
                ),
            ],
        ),
    )


def matching_datasets(keys: Iterable[str], pattern: str) -> list[str]:
    """The datasets that names are about, in their order."""
    return sorted({match[1] for key in keys if (match := re.fullmatch(pattern, key))})
