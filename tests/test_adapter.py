"""Adapters: small, strict, exact."""

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fmsd.errors import InputError
from fmsd.models.detector import Detector, detector
from fmsd.optim.groups import decay_groups
from fmsd.peft import adapter
from fmsd.peft.bitfit import bitfit
from fmsd.peft.fmsd import fmsd
from fmsd.peft.full import full
from fmsd.peft.inject import fold_layers
from fmsd.peft.lora import lora
from fmsd.peft.lora_xs import lora_xs
from fmsd.peft.masm import masm
from fmsd.peft.method import Adaptation
from fmsd.peft.norm import norm
from fmsd.peft.probe import probe
from fmsd.peft.svf import svf
from tests.conftest import step, tiny_vit

IMAGE = torch.rand(4, 3, 32, 32)
LABEL = torch.tensor([0.0, 1.0, 0.0, 1.0])
BASE = {"name": "vit_tiny_patch16_224"}
SUBSPACES = {
    "patterns": ["attention", "mlp"],
    "subspaces": 2,
    "directions": 1,
    "penalties": {"orthogonality": 0.1, "spectral": 0.1},
}

METHODS: dict[str, Callable[..., Adaptation]] = {
    "fmsd": functools.partial(fmsd, **SUBSPACES),
    "hard": functools.partial(fmsd, **SUBSPACES, constraint="hard"),
    "masm": functools.partial(masm, **SUBSPACES, every=2, momentum=0.9, fraction=0.5),
    "lora": functools.partial(lora, patterns=["attention"], rank=2, alpha=4.0),
    "dora": functools.partial(lora, patterns=["attention"], rank=2, alpha=4.0, dora=True),
    "gaussian": functools.partial(
        lora, patterns=["attention"], rank=2, alpha=4.0, init="gaussian", scaling="rslora"
    ),
    "pissa": functools.partial(lora, patterns=["attention"], rank=2, alpha=4.0, init="pissa"),
    "milora": functools.partial(
        lora, patterns=["attention"], rank=2, alpha=4.0, dora=True, init="milora"
    ),
    "lora_xs": functools.partial(lora_xs, patterns=["attention"], rank=3),
    "svf": functools.partial(svf, patterns=["attention", "mlp"]),
    "norm": norm,
    "bitfit": bitfit,
    "probe": probe,
    "full": full,
}


def fresh() -> Detector:
    """The same base every time."""
    torch.manual_seed(7)
    return tiny_vit()


def train(
    model: Detector, adaptation: Adaptation, optimizer: torch.optim.Optimizer, steps: int
) -> list[float]:
    return [step(model, adaptation, optimizer, IMAGE, LABEL) for _ in range(steps)]


def adamw(model: Detector) -> torch.optim.Optimizer:
    return torch.optim.AdamW(decay_groups(model, 0.01), lr=0.01)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", list(METHODS))
def test_a_loaded_adapter_is_the_trained_detector_and_folds_to_timms_keys(
    name: str, tmp_path: Path
) -> None:
    model = fresh()
    base = adapter.fingerprint(model)
    train(model, METHODS[name](model), adamw(model), 3)
    adapter.save(model, tmp_path, BASE | {"hash": base}, {})
    expected = model(IMAGE)
    loaded = fresh()
    adapter.load(loaded, tmp_path)
    assert torch.equal(loaded(IMAGE), expected)
    learning = [
        {key for key, parameter in each.named_parameters() if parameter.requires_grad}
        for each in (model, loaded)
    ]
    assert learning[0] == learning[1]
    torch.testing.assert_close(fold_layers(loaded)(IMAGE), expected, rtol=1e-4, atol=1e-5)
    assert list(loaded.state_dict()) == list(fresh().state_dict())


@pytest.mark.parametrize("name", [name for name in METHODS if name != "masm"])
def test_training_goes_on_from_an_adapter_exactly(name: str, tmp_path: Path) -> None:
    """Initial directions and all: the losses after loading are those of the uninterrupted training,
    bit for bit.
    """
    model = fresh()
    base = adapter.fingerprint(model)
    adaptation = METHODS[name](model)
    optimizer = adamw(model)
    train(model, adaptation, optimizer, 3)
    adapter.save(model, tmp_path, BASE | {"hash": base}, {})
    moments = copy.deepcopy(optimizer.state_dict())
    expected = train(model, adaptation, optimizer, 3)
    loaded = fresh()
    adapter.load(loaded, tmp_path)
    optimizer = adamw(loaded)
    optimizer.load_state_dict(moments)
    assert train(loaded, Adaptation(adaptation.penalties), optimizer, 3) == expected


def test_an_adapter_holds_what_learned_and_nothing_of_the_frozen_rest(tmp_path: Path) -> None:
    model = fresh()
    base = adapter.fingerprint(model)
    fmsd(model, patterns=["blocks.1.attn.*"], subspaces=2, directions=1, penalties=None)
    adapter.save(model, tmp_path, BASE | {"hash": base}, {"method": {"name": "fmsd"}})
    tensors = load_file(tmp_path / "adapter.safetensors")
    factors = {
        f"blocks.1.attn.{layer}.artifacts.0.{name}"
        for layer in ("qkv", "proj")
        for name in ("u", "s", "v", "u0", "s0", "v0")
    }
    assert set(tensors) == factors | {"head.weight", "head.bias"}
    about = json.loads((tmp_path / "adapter.json").read_text())
    assert about["format"] == adapter.ADAPTER_FORMAT == 2
    assert about["base"]["hash"] == base
    assert about["head"] == "head"
    assert about["layers"]["blocks.1.attn.qkv"] == {
        "kind": "subspace",
        "parts": 3,
        "subspaces": 2,
        "directions": 1,
        "allotment": "interleave",
        "split": "tail",
        "apart": False,
        "based": False,
        "hard": False,
    }
    assert about["normalisation"]["mean"] == pytest.approx(model.mean.flatten().tolist())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter.json",
        "adapter.safetensors",
    ]


def test_statistics_of_batch_norms_that_learn_belong_to_the_adapter(tmp_path: Path) -> None:
    def network() -> Detector:
        torch.manual_seed(1)
        return detector("tf_efficientnet_lite0", size=32)

    model = network()
    base = adapter.fingerprint(model)
    norm(model)
    model.train()
    train(model, Adaptation(), adamw(model), 2)
    adapter.save(model, tmp_path, BASE | {"hash": base}, {})
    loaded = network()
    adapter.load(loaded, tmp_path)
    assert torch.equal(loaded.eval()(IMAGE), model.eval()(IMAGE))
    frozen = network()
    probe(frozen)
    assert set(adapter.state_dict(frozen)) == {"classifier.weight", "classifier.bias"}


def test_the_fingerprint_is_that_of_the_weights_without_the_head() -> None:
    model = fresh()
    print_ = adapter.fingerprint(model)
    with torch.no_grad():
        model.head().weight.add_(1)  # pyright: ignore
        # resampled to the input's size, to the last bit as the processor does it
        model.backbone.get_parameter("pos_embed").mul_(1 + 1e-7)
    assert adapter.fingerprint(model) == print_
    with torch.no_grad():
        model.backbone.get_parameter("blocks.0.mlp.fc1.bias")[0].add_(1e-3)
    assert adapter.fingerprint(model) != print_


def test_tensors_restored_over_other_initial_directions_give_the_same_matrices() -> None:
    """A detector adapted anew may find other directions (another processor, another random split):
    the pretrained part follows them.
    """
    models = []
    for seed in (1, 2):
        model = fresh()
        torch.manual_seed(seed)
        fmsd(model, patterns=["attention"], subspaces=2, directions=1, split="random")
        models.append(model)
    one, other = models
    train(one, Adaptation(), adamw(one), 2)
    adapter.load_state_dict(other, adapter.state_dict(one), "a test")
    torch.testing.assert_close(other(IMAGE), one(IMAGE), rtol=1e-5, atol=1e-6)


def saved(folder: Path) -> Path:
    model = fresh()
    base = adapter.fingerprint(model)
    fmsd(model, patterns=["attention"], subspaces=2, directions=1)
    adapter.save(model, folder, BASE | {"hash": base}, {})
    return folder


def rewritten(folder: Path, **changes: Any) -> None:
    path = folder / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_does_not_fit_is_refused_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds no adapter \(adapter\.json is missing\); give the folder of a run"
    ):
        adapter.load(fresh(), tmp_path)
    saved(tmp_path)
    with pytest.raises(
        InputError,
        match=r"belongs to other base weights: vit_tiny_patch16_224 with hash \w{12}, not \w{12}",
    ):
        adapter.load(tiny_vit(), tmp_path)
    tensors = load_file(tmp_path / "adapter.safetensors")
    save_file(
        {key: value for key, value in tensors.items() if key != "head.bias"},
        tmp_path / "adapter.safetensors",
    )
    with pytest.raises(
        InputError, match=r"do not belong together \('head\.bias' is in one of them only\)"
    ):
        adapter.load(fresh(), tmp_path)
    save_file(
        tensors | {"blocks.0.norm1.nothing": torch.zeros(1)}, tmp_path / "adapter.safetensors"
    )
    with pytest.raises(
        InputError, match=r"do not belong together \('blocks\.0\.norm1\.nothing' is in"
    ):
        adapter.load(fresh(), tmp_path)
    (tmp_path / "adapter.safetensors").write_bytes(b"half")
    with pytest.raises(
        InputError, match=r"adapter\.safetensors cannot be read: it .*; download it again"
    ):
        adapter.load(fresh(), tmp_path)
    saved(tmp_path)
    rewritten(tmp_path, format=9)
    with pytest.raises(
        InputError, match=r"has format 9, and this version reads format 2; train it again"
    ):
        adapter.load(fresh(), tmp_path)


def test_tensors_of_another_shape_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = load_file(tmp_path / "adapter.safetensors")
    save_file(tensors | {"head.weight": torch.zeros(1, 3)}, tmp_path / "adapter.safetensors")
    with pytest.raises(InputError, match=r"do not fit the detector \(first: 'head\.weight'\)"):
        adapter.load(fresh(), tmp_path)
    for damage in (
        {"layers": {"blocks.9.attn.qkv": {"kind": "subspace"}}},
        {"layers": {"blocks.0.attn.qkv": {"kind": "magic"}}},
    ):
        saved(tmp_path)
        rewritten(tmp_path, **damage)
        with pytest.raises(
            InputError,
            match=(
                r"adapter\.json (is damaged: the layer 'blocks\.\d\.attn\.qkv' cannot be made of "
                r"it|has layers of the kind 'magic')"
            ),
        ):
            adapter.load(fresh(), tmp_path)
    (tmp_path / "adapter.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match=r"adapter\.json is damaged: it lacks 'base'"):
        adapter.load(fresh(), tmp_path)
    (tmp_path / "adapter.json").write_text("[]")
    with pytest.raises(
        InputError, match=r"adapter\.json is damaged: it should be a valid dictionary"
    ):
        adapter.load(fresh(), tmp_path)
    saved(tmp_path)
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter\.safetensors is missing"):
        adapter.load(fresh(), tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
NO_ADAPTER = {
    "pointer": (
        "adapter.safetensors",
        POINTER,
        r"adapter\.safetensors cannot be read: it is a Git LFS pointer.*; run `git lfs pull`",
    ),
    "described by a pointer": (
        "adapter.json",
        POINTER,
        r"adapter\.json cannot be read: it is a Git LFS pointer.*; run `git lfs pull`",
    ),
    "page": (
        "adapter.json",
        b"<!doctype html><title>404</title>",
        r"adapter\.json cannot be read: it is a web page; download the file itself",
    ),
    "empty": (
        "adapter.json",
        b"",
        r"adapter\.json cannot be read: it is empty \(0 bytes\); take it anew from the run",
    ),
    "half": (
        "adapter.json",
        b'{"format": 1, "base"',
        r"adapter\.json is no JSON \(.*\); take it anew from the run",
    ),
    "deep": ("adapter.json", b"[" * 100_000, r"adapter\.json is no JSON"),
    "latin": (
        "adapter.json",
        b'{"format": "\xe9"}',
        r"adapter\.json is no JSON",
    ),
}


@pytest.mark.parametrize("name", NO_ADAPTER)
def test_what_is_no_adapter_is_named(name: str, tmp_path: Path) -> None:
    file, content, said = NO_ADAPTER[name]
    (saved(tmp_path) / file).write_bytes(content)
    with pytest.raises(InputError, match=said):
        adapter.load(fresh(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"base": {"name": "x"}}, "it lacks 'base.hash'"),
        ({"base": []}, "'base' should be a valid dictionary"),
        ({"layers": []}, "'layers' should be a valid dictionary"),
        ({"tensors": [[]]}, "'tensors.0' should be a valid string"),
        ({"tensors": "head.bias"}, "'tensors' should be a valid list"),
    ],
    ids=str,
)
def test_a_description_of_other_types_is_refused(
    changes: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    rewritten(saved(tmp_path), **changes)
    with pytest.raises(InputError, match=rf"adapter\.json is damaged: {fault}; take it anew"):
        adapter.load(fresh(), tmp_path)


@pytest.mark.parametrize(
    "layer",
    [
        None,
        [],
        "subspace",
        {"kind": []},
        {"kind": "subspace", "subspaces": -1, "directions": "x", "apart": True},
    ],
    ids=str,
)
def test_a_layer_of_other_types_is_refused(layer: object, tmp_path: Path) -> None:
    layers = json.loads((saved(tmp_path) / "adapter.json").read_text())["layers"]
    rewritten(tmp_path, layers=layers | {"blocks.0.attn.qkv": layer})
    with pytest.raises(
        InputError,
        match=r"adapter\.json is damaged: (the layer )?'(layers\.)?blocks\.0\.attn\.qkv",
    ):
        adapter.load(fresh(), tmp_path)


HOSTILE = {
    "another kind": {"layers": {"blocks.0.attn.qkv": {"kind": "os.system"}}},
    "no kind": {"layers": {"blocks.0.attn.qkv": {}}},
    "a kind that is no text": {"layers": {"blocks.0.attn.qkv": {"kind": ["lora"]}}},
    "a rank as large as memory": {
        "layers": {"blocks.0.attn.qkv": {"kind": "lora", "rank": 10**13, "alpha": 1}}
    },
    "no rank": {"layers": {"blocks.0.attn.qkv": {"kind": "lora", "rank": 0, "alpha": 1}}},
    "an argument of its own": {"layers": {"blocks.0.attn.qkv": {"kind": "subspace", "layer": 1}}},
    "code for an argument": {
        "layers": {"blocks.0.attn.qkv": {"kind": "lora", "rank": {"_target_": "os.getcwd"}}}
    },
    "no matrix": {"layers": {"blocks.0.norm1": {"kind": "lora", "rank": 1, "alpha": 1}}},
    "the whole network": {"layers": {"": {"kind": "lora", "rank": 1, "alpha": 1}}},
    "a list of layers": {"layers": ["blocks.0.attn.qkv"]},
    "a layer without arguments": {"layers": {"blocks.0.attn.qkv": "lora"}},
    "tensors that are no names": {"tensors": [{"a": 1}]},
    "no list of tensors": {"tensors": 3},
    "no base": {"base": "vit"},
    "a hash that is no text": {"base": {"name": "vit", "hash": 3}},
}


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=list(HOSTILE))
def test_a_description_makes_no_other_layers_than_ours(
    damage: dict[str, object], tmp_path: Path
) -> None:
    saved(tmp_path)
    rewritten(tmp_path, **damage)
    with pytest.raises(
        InputError, match=r"adapter\.json (is damaged: |has layers of the kind)"
    ) as refusal:
        adapter.load(fresh(), tmp_path)
    assert str(tmp_path) in str(refusal.value)


def test_a_rank_that_its_tensors_do_not_have_is_never_allocated(tmp_path: Path) -> None:
    model = fresh()
    base = adapter.fingerprint(model)
    lora(model, patterns=["attention"], rank=2, alpha=4.0)
    adapter.save(model, tmp_path, BASE | {"hash": base}, {})
    layers = json.loads((tmp_path / "adapter.json").read_text())["layers"]
    rewritten(tmp_path, layers={name: spec | {"rank": 10**7} for name, spec in layers.items()})
    with pytest.raises(InputError, match=r"rank 10000000 is not that of its tensors"):
        adapter.load(fresh(), tmp_path)
