"""Pretrains the embedded backbone, a small plain ViT, on drawn faces without any forgery.

The task is semantic: regress the person's traits, the pose and the light from one image of a wide
mixture of recording conditions. The result, `fmsd/models/demo_vit.safetensors`, gives
parameter-efficient methods a pretrained backbone to adapt, without a download. Repeat it with

    python experiments/demo_vit.py

Cost: about 8 minutes on 2 CPU cores.
"""

import argparse
import multiprocessing
import os
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch.nn import functional

import fmsd
from fmsd.data.synthetic import faces, plan, recording
from fmsd.models.detector import detector

ARCHITECTURE: dict[str, Any] = {
    "img_size": faces.SIZE,
    "patch_size": 8,
    "embed_dim": 160,
    "depth": 6,
    "num_heads": 5,
}
PERSONS, POSES = 3000, 4
FLAGS = [faces.TRAITS.index(flag) for flag in faces.TRAIT_FLAGS]


def photographs(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and targets of one person: `POSES` JPEG frames, each with its own camera and light."""
    condition = recording.ANYWHERE
    rng = np.random.default_rng(plan.seed_from("pretrain", plan.DRAWING_VERSION, number))
    who = recording.draw_identity(rng, condition)
    images, targets = [], []
    for _ in range(POSES):
        (pose,) = recording.draw_movement(rng, 1, condition)
        scene = faces.render(who, pose, int(rng.integers(2**31)), rng.uniform(0, condition.clutter))
        image = (
            (recording.photograph(scene.image, rng, rng, condition) * 255).round().astype(np.uint8)
        )
        stored = plan.encode_jpeg(
            image, int(rng.integers(condition.jpeg[0], condition.jpeg[1] + 1))
        )
        images.append(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR_RGB))
        targets.append(astuple(who) + astuple(pose))
    return np.stack(images), np.array(targets, np.float32)


def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of traits plus cross-entropy of flags, each target with equal weight."""
    flags = torch.zeros(target.shape[1], dtype=torch.bool)
    flags[FLAGS] = True
    error = functional.mse_loss(output[:, ~flags], target[:, ~flags], reduction="sum")
    error = error + functional.binary_cross_entropy_with_logits(
        output[:, flags], target[:, flags], reduction="sum"
    )
    return error / target.numel()


def main() -> None:
    """Renders, trains, reports the error on unseen persons and writes the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path(fmsd.__file__).parent / "models" / "demo_vit.safetensors"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()

    torch.manual_seed(0)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        drawn = list(
            track(pool.imap(photographs, range(PERSONS), chunksize=16), "drawing", total=PERSONS)
        )
    images = (
        torch.from_numpy(np.concatenate([image for image, _ in drawn]))
        .permute(0, 3, 1, 2)
        .contiguous()
    )
    targets = torch.from_numpy(np.concatenate([target for _, target in drawn]))
    held = len(images) // 20
    train, valid = torch.arange(held, len(images)), torch.arange(held)

    model = detector("vit_tiny_patch16_224", size=faces.SIZE, **ARCHITECTURE)
    model.backbone.reset_classifier(targets.shape[1])  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    steps = options.epochs * (len(train) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1
    )

    def forward(rows: torch.Tensor) -> torch.Tensor:
        return model(images[rows])

    start = time.perf_counter()
    for epoch in range(options.epochs):
        model.train()
        order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))]
        for rows in track(
            order.split(options.batch)[: len(train) // options.batch],
            f"epoch {epoch + 1}/{options.epochs}",
        ):
            loss = loss_of(forward(rows), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            output = torch.cat([forward(rows) for rows in valid.split(256)])
        residual = (output - targets[valid]).var(0) / targets[valid].var(0)
        continuous = [index for index in range(targets.shape[1]) if index not in FLAGS]
        right = ((output[:, FLAGS] > 0).float() == targets[valid][:, FLAGS]).float().mean()
        print(
            f"epoch {epoch + 1}: loss {loss_of(output, targets[valid]):.4f}, variance explained "
            f"{1 - residual[continuous].mean():.3f}, "
            f"flags right {right:.3f}, {time.perf_counter() - start:.0f} s"
        )

    state = {
        key: value.half().contiguous()
        for key, value in model.backbone.state_dict().items()
        if not key.startswith("head.")
    }
    partial = options.out.with_suffix(".partial")
    save_file(
        state,
        partial,
        metadata={
            "made_by": "experiments/demo_vit.py",
            "model": "vit_tiny_patch16_224",
            "size": str(faces.SIZE),
        },
    )
    partial.replace(options.out)
    print(
        f"{options.out}: {sum(value.numel() for value in state.values()):,} parameters, "
        f"{options.out.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
