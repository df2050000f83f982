"""What a merge writes into its folder: weights, description, record and pictures."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

from fmsd.engine.merge_inputs import Inputs
from fmsd.figures.merge_pictures import draw_merge
from fmsd.merge.output import write_merged
from fmsd.merge.r2m import R2M
from fmsd.merge.r2m_script import R2MScript
from fmsd.merge.record import RECORD, core_merger, log_truncations, tensor_records
from fmsd.merge.task_vectors import Merger
from fmsd.peft import adapter
from fmsd.peft.experts import identities
from fmsd.runs.folder import Run

log = logging.getLogger(__name__)


def write_merge(
    run: Run, inputs: Inputs, merger: Merger, name: str, search: Mapping[str, Any] | None
) -> None:
    """Writes the merged weights, `merge.json` and the pictures of the merge.

    Args:
        name: of the merger.
        search: record of the search that chose the coefficients; None if they were given.
    """
    specialists, ceiling = inputs.specialists, inputs.ceiling
    core = core_merger(merger).core(specialists)
    warnings = core.warnings(specialists.labels)
    if isinstance(merger, R2M | R2MScript):
        for warning in warnings:
            log.warning("%s; see cosines.png and spectrum.png.", warning)
    merged = write_merged(
        run.folder / adapter.TENSORS, specialists, merger, inputs.empty.backbone.state_dict()
    )
    log_truncations(merged)
    method = {"name": name, **dataclasses.asdict(merger)}  # pyright: ignore[reportArgumentType]
    adapter.write_description(
        inputs.empty, run.folder, inputs.base, {}, list(specialists.parts), {"method": method}
    )
    record = {
        "merger": method,
        "base": inputs.base,
        "experts": identities(inputs.experts),
        "gram": specialists.gram.sum(0).tolist(),
        "core": core.weights.tolist(),
        "core_shares": core.shares,
        "spectral_gap": core.gap,
        "warnings": warnings,
        "ceiling": ceiling,
        "search": search,
        "layers": tensor_records(specialists, merger, merged),
    }
    run.write(RECORD, json.dumps(record, indent=1) + "\n")
    draw_merge(
        specialists, merger, core, None if ceiling is None else ceiling["cosine"], run.folder
    )
