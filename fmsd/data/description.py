"""The description of a manifest's datasets in the record of a run."""

from typing import Any

from fmsd.data.frame import SPLITS
from fmsd.data.manifest import Manifest
from fmsd.data.prepared_folder import crop_settings


def describe_datasets(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Per dataset: digest, number of frames, videos by split, and crop settings where known."""
    crops = crop_settings(manifest.root)
    description = {}
    for dataset in manifest.table["dataset"].unique().sort().to_list():
        part = manifest.where(dataset=dataset)
        description[dataset] = {
            "digest": part.digest(),
            "frames": len(part),
            "videos": {split: part.where(split=split).videos for split in SPLITS},
        } | ({} if crops is None else {"crops": crops})
    return description
