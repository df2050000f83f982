"""Specialists read layer by layer are the detectors that their adapters make, and what is merged of
them loads again.
"""

import functools
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.merge.task_vectors import Part
from fmsd.models.detector import Detector, detector, meta_detector
from fmsd.peft import adapter
from fmsd.peft.bitfit import bitfit
from fmsd.peft.fmsd import fmsd
from fmsd.peft.folded import FoldedWeights
from fmsd.peft.full import full
from fmsd.peft.inject import fold_layers
from fmsd.peft.lora import lora
from fmsd.peft.masm import masm
from fmsd.peft.method import Method
from fmsd.peft.norm import norm
from fmsd.peft.parts import changed_parts, network_parts
from fmsd.peft.probe import probe
from fmsd.state import StateFile, tensor_shapes, write_state
from tests.conftest import METHODS
from tests.test_families import CONVNEXT, FAMILIES, RESNET, SWIN, VIT, Family

Make = Callable[..., Detector]

NETWORKS: dict[str, Make] = {
    "vit": functools.partial(detector, "vit_base_patch16_224", 32, **VIT),
    "swin": functools.partial(detector, "swin_tiny_patch4_window7_224", 32, **SWIN),
    "convnext": functools.partial(detector, "convnext_tiny", 32, **CONVNEXT),
    # strided pointwise convolutions, batch norms
    "resnet": functools.partial(detector, "resnet50", 32, **RESNET),
    # pointwise and depthwise convolutions with and without a bias
    "efficientnet": functools.partial(detector, "test_efficientnet", 32),
    "siglip": functools.partial(detector, "vit_base_patch16_siglip_224", 32, **VIT),  # fused k, v
    # biases of q and v apart from their layer
    "eva": functools.partial(detector, "eva02_base_patch14_224", 32, **VIT),
}

BOTH = ["attention", "mlp"]
TWO = {"subspaces": 2, "directions": 2}
PENALTIES = {"orthogonality": 1.0, "spectral": 1.0}
ADAPTED: dict[str, tuple[str, Method]] = {
    **{name: ("vit", method) for name, method in METHODS.items()},
    "dora": ("vit", functools.partial(lora, patterns=BOTH, rank=2, alpha=4.0, dora=True)),
    "norm": ("vit", norm),
    "bitfit": ("vit", bitfit),
    "probe": ("vit", probe),
    "effort": ("vit", functools.partial(fmsd, patterns=["attention"], subspaces=1, directions=1)),
    "hard": ("vit", functools.partial(fmsd, patterns=BOTH, **TWO, constraint="hard")),
    "hard masm": (
        "vit",
        functools.partial(
            masm, patterns=BOTH, **TWO, every=2, momentum=0.9, fraction=0.5, constraint="hard"
        ),
    ),
    "contiguous": (
        "vit",
        functools.partial(fmsd, patterns=BOTH, **TWO, allotment="contiguous", penalties=PENALTIES),
    ),
    "top": ("vit", functools.partial(fmsd, patterns=["mlp"], **TWO, split="top")),
    "random": ("vit", functools.partial(fmsd, patterns=["mlp"], **TWO, split="random")),
    "swin": ("swin", functools.partial(fmsd, patterns=BOTH, **TWO)),
    "convnext": ("convnext", functools.partial(lora, patterns=["mlp"], rank=2, alpha=4.0)),
    "fused k, v": ("siglip", functools.partial(fmsd, patterns=["attention"], **TWO)),
    "q, k, v apart": ("eva", functools.partial(lora, patterns=BOTH, rank=2, alpha=4.0)),
    "biases apart": ("eva", bitfit),
    "pointwise fmsd": (
        "efficientnet",
        functools.partial(fmsd, patterns=["pointwise"], subspaces=1, directions=2),
    ),
    "pointwise masm": (
        "resnet",
        functools.partial(masm, patterns=["pointwise"], **TWO, every=2, momentum=0.9, fraction=0.5),
    ),
    "pointwise lora": (
        "efficientnet",
        functools.partial(lora, patterns=["pointwise"], rank=2, alpha=4.0),
    ),
    "pointwise dora": (
        "resnet",
        functools.partial(lora, patterns=["pointwise"], rank=2, alpha=4.0, dora=True),
    ),
    "batch norms": ("resnet", norm),
    "biases of batch norms": ("efficientnet", bitfit),
    "full cnn": ("efficientnet", full),
}
every_method = pytest.mark.parametrize("name", ADAPTED)


class Case(NamedTuple):
    """A specialist on disk, its base, and the weights that loading and folding give."""

    folder: Path
    make: Make
    base: dict[str, Tensor]
    hash: str
    folded: dict[str, Tensor]

    def open(self, base: Mapping[str, Tensor] | None = None) -> FoldedWeights:
        return FoldedWeights(
            self.folder, self.base if base is None else base, self.hash, meta_detector(self.make)
        )


def weights(make: Make) -> dict[str, Tensor]:
    """The same random weights every time; no tensor is constant."""
    torch.manual_seed(7)
    state = make().backbone.state_dict()
    return {
        key: value + 0.1 * torch.rand_like(value) if value.is_floating_point() else value + 1
        for key, value in state.items()
    }


def begin(make: Make, base: Mapping[str, Tensor]) -> Detector:
    model = make()
    model.backbone.load_state_dict({key: value.clone() for key, value in base.items()})
    return model


@torch.no_grad()
def stir(model: Detector) -> None:
    """Moves trainable parameters and the statistics of trained norms, as training does."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and any(
            parameter.requires_grad for parameter in module.parameters()
        ):
            cast(Tensor, module.running_mean).add_(torch.randn(module.num_features))
            cast(Tensor, module.running_var).mul_(1 + torch.rand(module.num_features))
            cast(Tensor, module.num_batches_tracked).add_(3)


def train(folder: Path, make: Make, method: Method, base: dict[str, Tensor] | None = None) -> Case:
    base = weights(make) if base is None else base
    model = begin(make, base)
    found = adapter.fingerprint(model)
    method(model)
    stir(model)
    adapter.save(model, folder, {"name": "a network", "hash": found}, {})
    return Case(folder, make, base, found, merged(folder, make, base))


def merged(folder: Path, make: Make, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What loading an adapter and folding it gives."""
    model = begin(make, base)
    adapter.load(model, folder)
    fold_layers(model.backbone)
    return model.backbone.state_dict()


@pytest.fixture
def case(name: str, tmp_path: Path) -> Case:
    network, method = ADAPTED[name]
    return train(tmp_path, NETWORKS[network], method)


def check_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Both ways do the same arithmetic on the same numbers, so they agree to the bit."""
    assert list(found) == list(expected)
    assert tensor_shapes(found) == tensor_shapes(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key


# ---- Folded


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


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


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
    for damage in (
        {"kind": "magic"},
        {"kind": "subspace"},
        {"kind": "lora", "rank": 2, "alpha": 1.0, "angle": 2},
    ):
        about["layers"]["blocks.0.attn.qkv"] = damage
        (tmp_path / "adapter.json").write_text(json.dumps(about))
        said = refusal(lambda: case.open()["blocks.0.attn.qkv.weight"])
        assert "adapter.json is damaged: the layer 'blocks.0.attn.qkv' cannot be made of it" in said


def test_a_tensor_of_an_adapted_layer_of_another_shape_is_refused(tmp_path: Path) -> None:
    case = train(tmp_path, NETWORKS["vit"], METHODS["lora"])
    tensors = dict(load_file(tmp_path / "adapter.safetensors"))
    name = next(key for key in tensors if key.startswith("blocks.0.attn.qkv."))
    save_file(tensors | {name: torch.zeros(2, 3, 4)}, tmp_path / "adapter.safetensors")
    assert f"{name} has the shape (2, 3, 4) instead of" in refusal(
        lambda: case.open()["blocks.0.attn.qkv.weight"]
    )


# ---- reading, rebuilding, describing adapters


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
        assert (
            cast(adapter.AdaptedLayer, rebuilt).describe()
            == cast(adapter.AdaptedLayer, made).describe()
        )
        buffers, own = dict(rebuilt.named_buffers()), dict(made.named_buffers())
        assert set(buffers) == set(own)
        assert all(torch.equal(buffers[key], value) for key, value in own.items())
        assert torch.equal(
            cast(adapter.AdaptedLayer, rebuilt).fold().get_parameter("weight"),
            cast(adapter.AdaptedLayer, made).fold().get_parameter("weight"),
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
        adapter.FORMAT,
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


# ---- parts


AFFINE = Part("other", affine=True)

PARTS: dict[str, dict[str, Part]] = {
    "vit": {
        "cls_token": Part("other"),
        "pos_embed": Part("other"),
        "patch_embed.proj.weight": Part("matrix"),
        "patch_embed.proj.bias": AFFINE,
        "blocks.0.norm1.weight": AFFINE,
        "blocks.0.norm1.bias": AFFINE,
        "blocks.0.attn.qkv.weight": Part("matrix", 3),
        "blocks.0.attn.qkv.bias": AFFINE,
        "blocks.0.attn.proj.weight": Part("matrix"),
        "blocks.0.mlp.fc1.weight": Part("matrix"),
        "head.weight": Part("head"),
        "head.bias": Part("head"),
    },
    "siglip": {
        "attn_pool.kv.weight": Part("matrix", 2),
        "attn_pool.q.weight": Part("matrix"),
        "attn_pool.latent": Part("other"),
        "blocks.0.attn.qkv.weight": Part("matrix", 3),
    },
    "eva": {
        "blocks.0.attn.q_proj.weight": Part("matrix"),
        "blocks.0.mlp.fc1_g.weight": Part("matrix"),
        "blocks.0.attn.q_proj.bias": AFFINE,
    },
    "swin": {
        "layers.0.blocks.0.attn.relative_position_bias_table": Part("other"),
        "layers.0.blocks.0.attn.qkv.weight": Part("matrix", 3),
        "layers.1.downsample.reduction.weight": Part("matrix"),
        "layers.1.downsample.norm.weight": AFFINE,
        "head.fc.weight": Part("head"),
        "head.fc.bias": Part("head"),
    },
    "efficientnet": {
        "conv_stem.weight": Part("matrix"),
        "bn1.weight": AFFINE,
        "bn1.bias": AFFINE,
        "bn1.running_mean": Part("statistic"),
        "bn1.running_var": Part("statistic"),
        "bn1.num_batches_tracked": Part("counter"),
        "classifier.weight": Part("head"),
    },
    "resnet": {
        "layer2.0.conv2.weight": Part("matrix"),
        "layer2.0.downsample.0.weight": Part("matrix"),
        "fc.bias": Part("head"),
    },
    "convnext": {
        "stem.0.weight": Part("matrix"),
        "stages.0.blocks.0.conv_dw.weight": Part("other"),
        "stages.0.blocks.0.gamma": Part("other"),
        "stages.0.blocks.0.mlp.fc1.weight": Part("matrix"),
        "stages.1.downsample.1.weight": Part("matrix"),
        "head.norm.weight": AFFINE,
        "head.fc.weight": Part("head"),
    },
}


@pytest.mark.parametrize("network", PARTS)
def test_tensors_are_what_their_modules_make_them(network: str) -> None:
    found = network_parts(meta_detector(NETWORKS[network]))
    assert {name: found[name] for name in PARTS[network]} == PARTS[network]
    head = adapter.head_name(NETWORKS[network]())
    assert {name for name, part in found.items() if part.kind == "head"} == {
        f"{head}.weight",
        f"{head}.bias",
    }


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_skeleton_is_the_detector_without_memory_and_every_tensor_has_a_part(
    family: Family,
) -> None:
    make = functools.partial(detector, family.name, family.size, **family.arguments)
    real, empty = make(), meta_detector(make)
    own, found = real.backbone.state_dict(), empty.backbone.state_dict()
    assert list(found) == list(own)
    assert {key: (value.shape, value.dtype) for key, value in found.items()} == {
        key: (value.shape, value.dtype) for key, value in own.items()
    }
    assert all(
        tensor.is_meta for tensor in (*empty.backbone.parameters(), *empty.backbone.buffers())
    )
    assert [(name, type(module)) for name, module in empty.named_modules()] == [
        (name, type(module)) for name, module in real.named_modules()
    ]
    config = resolve_model_data_config(real.backbone)
    assert empty.mean.flatten().tolist() == torch.tensor(config["mean"]).tolist()
    assert empty.std.flatten().tolist() == torch.tensor(config["std"]).tolist()

    kinds = network_parts(empty)
    assert kinds == network_parts(real)
    assert list(kinds) == list(own)
    assert {part.kind for part in kinds.values()} <= {
        "matrix",
        "other",
        "statistic",
        "counter",
        "head",
    }
    learning = dict(real.backbone.named_parameters())
    for name, part in kinds.items():
        assert (part.kind in ("statistic", "counter")) == (name not in learning), name
        assert (part.kind == "counter") == (not own[name].is_floating_point()), name
        assert own[name].dim() > 1 or part.kind != "matrix", name
        if part.kind == "matrix":
            assert part.matrices(own[name]).shape == (
                part.slices,
                len(own[name]) // part.slices,
                own[name][0].numel(),
            )
    grouped = {
        name
        for name, module in real.backbone.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    assert all(kinds[f"{name}.weight"] == Part("other") for name in grouped)


class Attention(nn.Module):
    """A backbone with torch's own attention, and a buffer of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.embedding = nn.Embedding(4, 8)
        self.turned = nn.ConvTranspose2d(8, 8, 2)
        self.volume = nn.Conv3d(8, 8, 2)
        self.fc = nn.Linear(8, 1)
        self.register_buffer("index", torch.arange(4))
        self.register_buffer("mask", torch.ones(4, dtype=torch.bool))
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("cache", torch.ones(4), persistent=False)

    def get_classifier(self) -> nn.Module:
        return self.fc


def test_torchs_own_attention_stacks_three_matrices_and_buffers_are_known_by_their_dtype() -> None:
    found = network_parts(Detector(Attention(), (0.5,) * 3, (0.5,) * 3))
    assert found == {
        "index": Part("counter"),
        "mask": Part("counter"),
        "scale": Part("statistic"),
        "attention.in_proj_weight": Part("matrix", 3),
        "attention.in_proj_bias": AFFINE,
        "attention.out_proj.weight": Part("matrix"),
        "attention.out_proj.bias": AFFINE,
        "embedding.weight": Part("other"),
        "turned.weight": Part("other"),
        "turned.bias": AFFINE,
        "volume.weight": Part("matrix"),
        "volume.bias": AFFINE,
        "fc.weight": Part("head"),
        "fc.bias": Part("head"),
    }


def test_a_skeleton_reads_no_weights_and_does_not_disturb_the_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    empty = meta_detector(functools.partial(NETWORKS["vit"], weights=tmp_path / "none.safetensors"))
    assert torch.equal(torch.get_rng_state(), before)
    assert list(empty.backbone.state_dict()) == list(NETWORKS["vit"]().backbone.state_dict())


def test_a_large_skeleton_costs_nothing() -> None:
    """64 GB of weights in single precision."""
    empty = meta_detector(
        functools.partial(
            detector, "vit_giant_patch14_dinov2", 224, embed_dim=12288, num_heads=96, depth=8
        )
    )
    assert sum(parameter.numel() for parameter in empty.parameters()) > 1e10
    assert (
        sum(
            tensor.nbytes
            for tensor in (*empty.parameters(), *empty.buffers())
            if not tensor.is_meta
        )
        < 100
    )


# ---- changed


def write_merged(
    folder: Path, case: Case, state: Mapping[str, Tensor], touched: set[str]
) -> dict[str, Part]:
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
