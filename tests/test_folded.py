"""Folding: layer by layer is as folding whole, and merged adapters load again."""

import functools
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fmsd.merge.task_vectors import TensorPart
from fmsd.models.detector import Detector, meta_detector
from fmsd.peft import adapter
from fmsd.peft.folded import FoldedWeights
from fmsd.peft.lora import lora
from fmsd.peft.norm import norm
from fmsd.peft.parts import changed_parts, network_parts
from fmsd.state import StateFile, write_state
from tests.conftest import METHODS
from tests.folding import (
    ADAPTED,
    NETWORKS,
    Attention,
    Case,
    begin,
    check_same,
    every_method,
    merged,
    refusal,
    train,
    weights,
)


@pytest.fixture
def case(name: str, tmp_path: Path) -> Case:
    network, method = ADAPTED[name]
    return train(tmp_path, NETWORKS[network], method)


@every_method
def test_folded_layer_by_layer_is_loaded_and_folded_whole(case: Case) -> None:
    found = case.open()
    check_same(found, case.folded)
    assert len(found) == len(case.folded)
    for key in reversed(list(found)):  # in no order of layers
        assert torch.equal(found[key], case.folded[key]), key
    plain = case.make()
    plain.backbone.load_state_dict(dict(found))


@pytest.mark.parametrize("name", ["fmsd", "dora"])
def test_threads_that_read_different_layers_do_not_disturb_each_other(case: Case) -> None:
    found = case.open()
    names = [key for _ in range(20) for key in found]
    with ThreadPoolExecutor(4) as pool:
        for key, value in zip(names, pool.map(found.__getitem__, names), strict=True):
            assert torch.equal(value, case.folded[key]), key


@every_method
def test_touched_is_what_learned_and_the_layers_it_lies_in(case: Case) -> None:
    found = case.open()
    moved = {key for key, value in case.folded.items() if not torch.equal(value, case.base[key])}
    about = json.loads((case.folder / "adapter.json").read_text())
    layers = {f"{layer}.{key}" for layer in about["layers"] for key in ("weight", "bias")}
    assert moved
    assert moved <= found.changed_names
    assert found.changed_names == {
        key for key in case.base if key in about["tensors"] or key in layers
    }
    for key in set(found) - found.changed_names:
        assert torch.equal(found[key], case.base[key]), key


@pytest.mark.parametrize("name", ["fmsd", "dora", "full", "pointwise masm", "batch norms"])
def test_a_base_in_a_half_precision_file_is_the_detector_loaded_from_it(
    name: str, tmp_path: Path
) -> None:
    network, method = ADAPTED[name]
    make, file = NETWORKS[network], tmp_path / "base.safetensors"
    save_file(
        {
            key: value.half() if value.is_floating_point() else value
            for key, value in weights(make).items()
        },
        file,
    )
    make = functools.partial(make, weights=file)
    case = train(tmp_path, make, method, make().backbone.state_dict())
    found = case.open(StateFile(file))
    assert adapter.fingerprint(meta_detector(make), StateFile(file)) == case.hash
    for key, value in case.folded.items():
        assert torch.equal(found[key].to(value.dtype), value), key
        assert key not in found.changed_names or found[key].dtype == value.dtype, key


def test_a_name_that_no_backbone_has_is_a_key_error(tmp_path: Path) -> None:
    found = train(tmp_path, NETWORKS["vit"], METHODS["fmsd"]).open()
    for name in (
        "nothing",
        "blocks.0.attn.qkv.nothing",
        "blocks.0.attn.qkv.artifacts.0.u",
        "blocks.0.attn.qkv",
    ):
        assert name not in found
        with pytest.raises(KeyError):
            found[name]


def test_only_what_is_asked_for_is_folded(tmp_path: Path) -> None:
    """A base that lacks all other tensors is enough for one layer's."""
    case = train(tmp_path, NETWORKS["vit"], METHODS["fmsd"])
    few = {key: value for key, value in case.base.items() if key.startswith("blocks.0.attn.proj.")}
    found = case.open(few)
    assert torch.equal(found["blocks.0.attn.proj.weight"], case.folded["blocks.0.attn.proj.weight"])
    assert torch.equal(found["head.weight"], case.folded["head.weight"])
    with pytest.raises(KeyError):
        found["blocks.0.attn.qkv.weight"]


@pytest.mark.parametrize("name", ["fmsd", "norm", "full"])
def test_what_does_not_belong_to_the_base_is_refused(name: str, case: Case, tmp_path: Path) -> None:
    empty = meta_detector(case.make)
    said = refusal(lambda: FoldedWeights(tmp_path, case.base, "0" * 64, empty))
    assert (
        f"belongs to other base weights: a network with hash {case.hash[:12]}, not 000000000000"
        in said
    )
    said = refusal(
        lambda: FoldedWeights(tmp_path, case.base, case.hash, meta_detector(NETWORKS["resnet"]))
    )
    assert "does not fit the backbone (first: '" in said
    assert "give the backbone it was made with" in said
    assert "holds no adapter (adapter.json is missing)" in refusal(
        lambda: FoldedWeights(tmp_path / "none", case.base, case.hash, empty)
    )
    (tmp_path / "adapter.safetensors").unlink()
    assert "holds no adapter (adapter.safetensors is missing)" in refusal(
        lambda: FoldedWeights(tmp_path, case.base, case.hash, empty)
    )


def test_a_backbone_of_another_depth_is_refused(tmp_path: Path) -> None:
    case = train(tmp_path, functools.partial(NETWORKS["vit"], depth=2), METHODS["fmsd"])
    empty = meta_detector(NETWORKS["vit"])
    assert "(first: 'blocks.1.attn.proj" in refusal(
        lambda: FoldedWeights(tmp_path, case.base, case.hash, empty)
    )


def test_tensors_of_another_input_size_are_refused_as_they_are_by_load(tmp_path: Path) -> None:
    """The fingerprint leaves out what is resampled to the input's size, so it cannot tell."""
    case = train(tmp_path, NETWORKS["vit"], METHODS["full"])
    large = functools.partial(case.make, img_size=64)
    base = {
        key: case.base[key] if key != "pos_embed" else value
        for key, value in weights(large).items()
    }
    assert adapter.fingerprint(begin(large, base)) == case.hash
    assert "(first: 'pos_embed')" in refusal(lambda: adapter.load(begin(large, base), tmp_path))
    assert "pos_embed" in refusal(
        lambda: FoldedWeights(tmp_path, base, case.hash, meta_detector(large))
    )


def test_a_layer_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    case = train(tmp_path, NETWORKS["vit"], METHODS["fmsd"])
    about = json.loads((tmp_path / "adapter.json").read_text())
    unmade = "adapter.json is damaged: the layer 'blocks.0.attn.qkv' cannot be made of it"
    for damage, sentence in (
        ({"kind": "magic"}, "adapter.json has layers of the kind 'magic'"),
        ({"kind": "subspace"}, unmade),
        ({"kind": "lora", "rank": 2, "alpha": 1.0, "angle": 2}, unmade),
    ):
        about["layers"]["blocks.0.attn.qkv"] = damage
        (tmp_path / "adapter.json").write_text(json.dumps(about))
        said = refusal(lambda: case.open()["blocks.0.attn.qkv.weight"])
        assert sentence in said


def test_a_tensor_of_an_adapted_layer_of_another_shape_is_refused(tmp_path: Path) -> None:
    case = train(tmp_path, NETWORKS["vit"], METHODS["lora"])
    tensors = dict(load_file(tmp_path / "adapter.safetensors"))
    name = next(key for key in tensors if key.startswith("blocks.0.attn.qkv."))
    save_file(tensors | {name: torch.zeros(2, 3, 4)}, tmp_path / "adapter.safetensors")
    assert f"{name} has the shape (2, 3, 4) instead of" in refusal(
        lambda: case.open()["blocks.0.attn.qkv.weight"]
    )


def write_merged(
    folder: Path, case: Case, state: Mapping[str, Tensor], touched: set[str]
) -> dict[str, TensorPart]:
    """A merged adapter as the merge task writes it: no adapted layers, the tensors of `changed`."""
    empty = meta_detector(case.make)
    kinds = changed_parts(empty, touched)
    own = empty.backbone.state_dict()
    write_state(
        folder / "adapter.safetensors",
        {name: (own[name].shape, own[name].dtype) for name in kinds},
        ((name, state[name]) for name in kinds),
    )
    adapter.write_description(
        empty, folder, {"name": "a network", "hash": case.hash}, {}, list(kinds), {}
    )
    return kinds


@every_method
def test_a_merged_adapter_of_what_changed_loads_and_is_a_specialist_again(
    case: Case, tmp_path: Path
) -> None:
    found = case.open()
    folder = tmp_path / "merged"
    kinds = write_merged(folder, case, found, found.changed_names)
    assert found.changed_names <= set(kinds)
    assert kinds == {
        name: part
        for name, part in network_parts(meta_detector(case.make)).items()
        if name in kinds
    }
    assert all(
        part.kind in ("statistic", "counter")
        for name, part in kinds.items()
        if name not in found.changed_names
    )
    check_same(merged(folder, case.make, case.base), case.folded)
    again = FoldedWeights(folder, case.base, case.hash, meta_detector(case.make))
    assert again.changed_names == set(kinds)
    check_same(again, case.folded)


@pytest.mark.parametrize("name", ["fmsd", "swin", "pointwise lora", "batch norms", "convnext"])
def test_a_merged_adapter_of_every_tensor_loads(name: str, case: Case, tmp_path: Path) -> None:
    """As where an expert is a whole file of weights."""
    folder = tmp_path / "merged"
    kinds = write_merged(folder, case, case.folded, set(case.folded))
    assert kinds == network_parts(meta_detector(case.make))
    check_same(merged(folder, case.make, case.base), case.folded)


def test_what_several_specialists_changed_is_in_one_adapter(tmp_path: Path) -> None:
    """Statistics travel with the norms they belong to; what neither touched stays the base's."""
    make = NETWORKS["resnet"]
    base = weights(make)
    one = train(
        tmp_path / "one",
        make,
        functools.partial(lora, patterns=["layer1.0.conv1"], rank=1, alpha=1.0),
        base,
    )
    other = train(tmp_path / "other", make, norm, base)
    mean = {
        key: (one.folded[key] + other.folded[key]) / 2 if value.is_floating_point() else value
        for key, value in base.items()
    }
    touched = one.open().changed_names | other.open().changed_names
    kinds = write_merged(tmp_path / "merged", one, mean, touched)
    assert "layer1.0.conv1.weight" in kinds
    assert "layer1.0.bn1.running_mean" in kinds
    assert "layer1.0.conv2.weight" not in kinds
    check_same(
        merged(tmp_path / "merged", make, base),
        {key: mean[key] if key in kinds else value for key, value in base.items()},
    )


def test_buffers_of_a_module_travel_with_the_parameters_in_it() -> None:
    """Where nothing learns but a table of biases, its statistics and counters are those of the
    modules around it, and no others.
    """
    model = Detector(Attention(), (0.5,) * 3, (0.5,) * 3)
    assert set(changed_parts(model, {"fc.bias"})) == {"fc.bias", "index", "mask", "scale"}
    batch = meta_detector(NETWORKS["resnet"])
    statistics = {f"bn1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert (
        set(changed_parts(batch, {"bn1.weight", "fc.weight"}))
        == {"bn1.weight", "fc.weight"} | statistics
    )
    assert set(changed_parts(batch, {"bn1.weight"})) == set(adapter.state_dict(batch))
    assert {
        name for name, parameter in batch.backbone.named_parameters() if parameter.requires_grad
    } == {"bn1.weight"}
