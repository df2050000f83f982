"""Columns of the tables of results: unseen datasets before seen ones, their means first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fmsd.report.rows import Row
from fmsd.report.tables import Table

SEEN, UNSEEN = "mean of the seen", "mean of the unseen"
"""Columns of means over the datasets with frames in some row's training data, and the others."""

GROUP_NAMES: Mapping[str, str] = {
    UNSEEN: "unseen (not trained on)",
    SEEN: "seen (trained on)",
}
"""What stands above the columns of a group, by its mean."""


def dataset_groups(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The unseen and the seen test datasets, by the column of their mean.

    Rows whose training data are unknown do not count; empty where all are unknown.
    """
    trained = {name for row in rows for facts in row.facts().values() for name in facts["train"]}
    trained.discard("unknown")
    if not trained:
        return {}
    datasets = dict.fromkeys(dataset for row in rows for dataset in row.prediction_files)
    groups = {
        UNSEEN: [dataset for dataset in datasets if dataset not in trained],
        SEEN: [dataset for dataset in datasets if dataset in trained],
    }
    return {name: own for name, own in groups.items() if own}


def group_means(groups: Mapping[str, Sequence[str]], rows: Sequence[Row]) -> dict[str, list[str]]:
    """The columns of means, with their datasets.

    A mean is left out if it is over one dataset, or if a row lacks one of its datasets.
    """
    return {
        name: list(own)
        for name, own in groups.items()
        if len(own) > 1 and all(dataset in row.prediction_files for row in rows for dataset in own)
    }


def with_groups(table: Table, groups: Mapping[str, Sequence[str]]) -> Table:
    """The table with its columns in groups, the mean of each before its datasets."""
    parts = [
        (GROUP_NAMES[name], [column for column in (name, *own) if column in table.columns])
        for name, own in groups.items()
    ]
    grouped = [(name, columns) for name, columns in parts if columns]
    order = [column for _, columns in grouped for column in columns]
    if sorted(order) != sorted(table.columns):
        return table
    return replace(table, columns=order, groups=grouped)


def group_sentence(table: Table) -> str:
    """A sentence on which datasets are unseen and seen; empty for a table without groups."""
    parts = [
        f"{name}: {', '.join(column for column in columns if column not in (SEEN, UNSEEN))}"
        for name, columns in table.groups
    ]
    text = "; ".join(parts)
    return text and f"{text[0].upper()}{text[1:]}."


def mean_sizes(table: Table) -> dict[str, str]:
    """The number of datasets that each mean is of, in words."""
    return {
        columns[0]: f"of {len(columns) - 1} datasets"
        for _, columns in table.groups
        if columns[0] in (SEEN, UNSEEN)
    }
