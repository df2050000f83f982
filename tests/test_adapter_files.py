"""Adapters are read as they were saved, and their layers rebuilt."""

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file

from fmsd.models.detector import meta_detector
from fmsd.peft import adapter
from fmsd.peft.inject import AdaptedLayer
from fmsd.state import StateFile, write_state
from tests.conftest import METHODS
from tests.folding import ADAPTED, NETWORKS, begin, check_same, merged, stir, weights


def test_what_is_read_is_what_was_saved(tmp_path: Path) -> None:
    model = begin(NETWORKS["vit"], weights(NETWORKS["vit"]))
    found = adapter.fingerprint(model)
    METHODS["masm"](model)
    stir(model)
    adapter.save(
        model, tmp_path, {"name": "a network", "hash": found}, {"method": {"name": "masm"}}
    )
    description, tensors = adapter.read(tmp_path, found)
    assert isinstance(tensors, StateFile)
    assert description == json.loads((tmp_path / "adapter.json").read_text())
    assert description["method"] == {"name": "masm"}
    kept = adapter.state_dict(model)
    assert description["tensors"] == list(kept)
    assert set(tensors) == set(kept)
    assert all(torch.equal(tensors[key], value) for key, value in kept.items())


@pytest.mark.parametrize(
    "name", ["fmsd", "masm", "hard", "dora", "pointwise fmsd", "pointwise dora"]
)
def test_a_rebuilt_layer_is_the_one_that_was_made(name: str, tmp_path: Path) -> None:
    network, method = ADAPTED[name]
    base = weights(NETWORKS[network])
    plain, model = begin(NETWORKS[network], base).backbone, begin(NETWORKS[network], base)
    found = adapter.fingerprint(model)
    method(model)
    adapter.save(model, tmp_path, {"name": "a network", "hash": found}, {})
    description, tensors = adapter.read(tmp_path, found)
    assert description["layers"]
    for layer in description["layers"]:
        made, rebuilt = (
            model.backbone.get_submodule(layer),
            adapter.rebuild_layer(
                plain.get_submodule(layer), layer, description, tensors, tmp_path
            ),
        )
        assert type(rebuilt) is type(made)
        assert cast(AdaptedLayer, rebuilt).describe() == cast(AdaptedLayer, made).describe()
        buffers, own = dict(rebuilt.named_buffers()), dict(made.named_buffers())
        assert set(buffers) == set(own)
        assert all(torch.equal(buffers[key], value) for key, value in own.items())
        assert torch.equal(
            cast(AdaptedLayer, rebuilt).fold().get_parameter("weight"),
            cast(AdaptedLayer, made).fold().get_parameter("weight"),
        )


def test_a_description_beside_tensors_is_an_adapter(tmp_path: Path) -> None:
    make = NETWORKS["vit"]
    base = weights(make)
    empty, hash_ = meta_detector(make), adapter.fingerprint(begin(make, base))
    head = {key: torch.rand_like(base[key]) for key in ("head.weight", "head.bias")}
    write_state(
        tmp_path / "adapter.safetensors",
        {key: (value.shape, value.dtype) for key, value in head.items()},
        head.items(),
    )
    adapter.write_description(
        empty,
        tmp_path,
        {"name": "a network", "hash": hash_},
        {},
        list(head),
        {"method": {"name": "ties"}},
    )
    about = json.loads((tmp_path / "adapter.json").read_text())
    assert (about["format"], about["head"], about["layers"], about["method"]) == (
        adapter.ADAPTER_FORMAT,
        "head",
        {},
        {"name": "ties"},
    )
    assert about["normalisation"] == {
        "mean": make().mean.flatten().tolist(),
        "std": make().std.flatten().tolist(),
    }
    check_same(merged(tmp_path, make, base), base | head)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_fingerprint_of_weights_is_that_of_the_detector_that_holds_them(
    network: str, tmp_path: Path
) -> None:
    make = NETWORKS[network]
    base, empty = weights(make), meta_detector(make)
    found = adapter.fingerprint(begin(make, base))
    assert adapter.fingerprint(empty, base) == found
    assert adapter.fingerprint(empty, base | {"unknown": torch.zeros(1)}) == found
    assert adapter.fingerprint(empty, weights=make().backbone.state_dict()) != found
    save_file(
        {key: value.half() if value.is_floating_point() else value for key, value in base.items()},
        tmp_path / "half.safetensors",
    )
    half = adapter.fingerprint(make(weights=tmp_path / "half.safetensors"))
    assert adapter.fingerprint(empty, StateFile(tmp_path / "half.safetensors")) == half
    assert half != found
