"""Packing: writes a dataset's images into a few large tars."""

from pathlib import Path

from fmsd.checks import parse_size
from fmsd.data import pack as packs
from fmsd.data.absent_videos import ABSENT, of_selection, read_absent
from fmsd.data.prepared_folder import crop_settings
from fmsd.data.selected_frames import list_frames
from fmsd.data.selection import Selection
from fmsd.quoting import shell_override


def pack(data: Selection, out: Path, size: str | int) -> None:
    """Writes every frame of a dataset into tars with its manifest, for `data.root=OUT`.

    Args:
        data: the frames; those of test datasets with roots of their own are left out.
        out: folder of the tars.
        size: bytes of a tar, as a number or like 500M or 1G; its last frame may exceed them.

    Raises:
        InputError: the dataset cannot be used, or `out` cannot be written.
    """
    tar_bytes = parse_size(size)
    manifest = list_frames(data).validate()
    absent = read_absent(manifest.root)
    lists = {} if absent is None else {ABSENT: of_selection(absent, data)}
    crops = crop_settings(manifest.root)
    tars = packs.write_pack(manifest.table, manifest.files(), out, tar_bytes, crops, lists)
    print(
        f"{out}: {len(manifest):,} frames in {tars} {'tar' if tars == 1 else 'tars'}; train with "
        f"{shell_override('data.root', out)}"
    )
    if elsewhere := [name for name in data.test if name not in manifest.table["dataset"]]:
        print(
            f"Not included, because they have other roots: {', '.join(elsewhere)}; pack each "
            "with fmsd pack data=NAME out=FOLDER."
        )
