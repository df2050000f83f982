"""Training in several processes: what two give is what one gives on the joint batch."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import torch

from fmsd.engine.launcher import is_launched, launch
from tests.conftest import METHODS, UNFOLDABLE, fmsd_command, fmsd_here, grow_tree
from tests.surroundings import python_path
from tests.test_resume import TINY, WRAPPERS, refused, start

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys, functools
import tests.conftest, torch
from lightning.pytorch import Trainer
from torch import distributed
from fmsd.engine.learner import Learner
from fmsd.engine.distributed import UnwrappedDDPStrategy, init_process_group
from fmsd.optim.schedule import constant
from tests.conftest import METHODS, UNFOLDABLE, tiny_vit
from tests.test_engine import module
from tests.test_resume import WRAPPERS
from pathlib import Path

place, count = Path(sys.argv[1]), int(sys.argv[2])
calls = []
original = distributed.all_reduce


def counting_all_reduce(tensor, *rest, **more):
    calls.append(tensor.numel() > 100)
    return original(tensor, *rest, **more)


distributed.all_reduce = counting_all_reduce
found = {}
for name, wrapper in WRAPPERS.items():
    for kind, method in (METHODS | UNFOLDABLE).items():
        torch.manual_seed(0)
        model = tiny_vit()
        size, batches = (9, "balanced") if wrapper.by_domain else (7, "shuffle")
        data = module(place / "data", batch_size=size, batches=batches)
        adaptation = method(model, None)
        # dropout and noise of their own in every process
        model.eval() if kind in ("lora", *UNFOLDABLE) else None
        optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
        learner = Learner(
            model, wrapper, optimizer, constant, adaptation, 20,
            domains=data.training_domains,
        )
        quiet = dict(
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu",
        )
        strategy = UnwrappedDDPStrategy() if count > 1 else "auto"
        quiet |= dict(default_root_dir=place, use_distributed_sampler=False, limit_val_batches=0)
        worker = Trainer(max_epochs=2, devices=count, strategy=strategy, **quiet)
        init_process_group(worker)
        calls.clear()
        worker.fit(learner, datamodule=data)
        found[name, kind] = {
            n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad
        }
        found[name, kind]["calls"] = torch.tensor(sum(calls) / worker.global_step)
        found[name, kind]["steps"] = torch.tensor(worker.global_step)
torch.save(found, place / f"{count}_{os.environ.get('LOCAL_RANK', 0)}.pt")
"""


@pytest.fixture(scope="module")
def weights(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[tuple[str, str], dict[str, torch.Tensor]]]:
    """The weights after two epochs of every wrapper with every method: of one process, and of each
    of two.
    """
    place = tmp_path_factory.mktemp("processes")
    grow_tree(place / "data", domains=("real", "swap", "blend"), videos=5)
    (place / "script.py").write_text(textwrap.dedent(SCRIPT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path())
        subprocess.run(
            [sys.executable, str(place / "script.py"), str(place), "1"], check=True, timeout=600
        )
        assert launch([str(place / "script.py"), str(place), "2"], 2) == 0
    return {
        name: torch.load(place / f"{name}.pt", weights_only=True) for name in ("1_0", "2_0", "2_1")
    }


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("method", METHODS | UNFOLDABLE)
def test_two_processes_give_what_one_gives_on_the_joint_batch(
    wrapper: str, method: str, weights: dict[str, dict[tuple[str, str], dict[str, torch.Tensor]]]
) -> None:
    """Batches do not divide by two, and the last one of an epoch is smaller. Gradients are reduced
    once per needed quantity.
    """
    one, first, second = (weights[name][wrapper, method] for name in ("1_0", "2_0", "2_1"))
    for name, tensor in one.items():
        if name != "calls":
            torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-6)
            assert torch.equal(first[name], second[name])
    quantities = {
        "erm": 1,
        "sam": 2,
        "sagm": 2,
        "roga": (1 + 2) / 2,
    }  # RoGA begins with an epoch of ERM
    assert (one["calls"], first["calls"]) == (0, quantities[wrapper])


def test_a_run_in_two_processes_is_that_of_one(tmp_path: Path) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    common = ("method=fmsd", "wrapper=roga", "wrapper.warmup_epochs=0")
    several = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
    one = fmsd_here("train", *TINY, *common, "hydra.run.dir=one", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    two = start(tmp_path, *several, *common, "hydra.run.dir=two")
    assert two.wait(timeout=300) == 0, two.communicate()[1]
    losses = [
        pl.read_csv(tmp_path / name / "logs" / "metrics.csv")["train/loss"].drop_nulls().to_list()
        for name in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    results = [
        pl.read_csv(tmp_path / name / "results.csv")["value"].to_list() for name in ("one", "two")
    ]
    assert results[1] == pytest.approx(results[0], abs=0.02)
    assert fmsd_here("evaluate", "run=two", "hydra.run.dir=again", cwd=tmp_path).returncode == 0
    assert (tmp_path / "again" / "results.csv").read_bytes() == (
        tmp_path / "two" / "results.csv"
    ).read_bytes()
    stopping = ("method=probe", "optimizer.lr=0.0", "patience=1")
    sweep = start(
        tmp_path, *several, *stopping, "seed=0,1", "hydra.mode=MULTIRUN", "hydra.sweep.dir=sweep"
    )
    assert sweep.wait(timeout=300) == 0, sweep.communicate()[1]
    assert len(list((tmp_path / "sweep").glob("*/results.csv"))) == 2
    records = [json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/run.json")]
    assert [(record["stopped"], record["processes"]) for record in records] == [("patience", 2)] * 2
    alone = ("data.batch_size=1", "hydra.run.dir=no")
    no = fmsd_command("train", *TINY, *common, *several, *alone, cwd=tmp_path)
    assert no.returncode == 2, no.stderr
    assert sum(line.startswith("fmsd: ") for line in no.stderr.splitlines()) == 1
    assert not (tmp_path / "no").exists()
    assert "needs something that starts a process per device" in refused(
        tmp_path, "train", *TINY, "trainer=ddp", "trainer.num_nodes=2"
    )


def test_a_mean_of_frames_is_that_of_one_process_also_with_a_second_view(tmp_path: Path) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    several = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
    two = start(tmp_path, *several, "method=bias_consist", "hydra.run.dir=two")
    one = fmsd_here("train", *TINY, "method=bias_consist", "hydra.run.dir=one", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    assert two.wait(timeout=300) == 0, two.communicate()[1]
    curves = [pl.read_csv(tmp_path / name / "logs" / "metrics.csv") for name in ("one", "two")]
    for name in ("loss", "classification", "consistency"):
        alone, shared = (table[f"train/{name}"].drop_nulls().to_list() for table in curves)
        assert shared == pytest.approx(alone, rel=1e-4, abs=1e-7)


def test_when_one_process_fails_the_others_are_stopped_and_it_is_heard(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit('no such "
        "camel')\ntime.sleep(100)"
    )
    began = time.monotonic()
    assert launch([str(script)], 3) == 1
    assert time.monotonic() - began < 60
    assert capfd.readouterr().err == "no such camel\n"


MEETING = """
import os, sys, socket
from pathlib import Path
import torch
from torch import distributed

def free():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(os.environ["MASTER_PORT"]))) != 0

assert not free(), "the port is anybody's before the processes meet"
distributed.init_process_group("gloo")
rank = torch.tensor([float(os.environ["RANK"])])
distributed.all_reduce(rank)
Path(sys.argv[1], os.environ["MASTER_PORT"] + "_" + os.environ["RANK"]).write_text(str(rank.item()))
distributed.destroy_process_group()
"""


def test_launches_that_begin_together_do_not_meet(tmp_path: Path) -> None:
    """The port of each is held before its processes begin, so that no other one can take it in
    between.
    """
    script = tmp_path / "meeting.py"
    script.write_text(MEETING)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: launch([str(script), str(tmp_path)], 2), range(3))) == [
            0,
            0,
            0,
        ]
    ports = {path.name.split("_")[0] for path in tmp_path.glob("*_[01]")}
    assert len(ports) == 3
    assert [(tmp_path / f"{port}_{rank}").read_text() for port in ports for rank in (0, 1)] == [
        "1.0"
    ] * 6


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "import os, time\nopen(f\"pid{os.environ['RANK']}\", "
        "'w').write(str(os.getpid()))\ntime.sleep(100)"
    )
    (tmp_path / "parent.py").write_text(
        "import sys\nfrom fmsd.engine.launcher import launch\ntry:\n    launch(['child.py'], 2)\n"
        "except KeyboardInterrupt as error:\n    sys.exit(error.code)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, env={"PYTHONPATH": python_path(), "PATH": ""}
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not all(
        (tmp_path / f"pid{rank}").exists() and (tmp_path / f"pid{rank}").read_text()
        for rank in (0, 1)
    ):
        time.sleep(0.1)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=60) == 128 + signal.SIGTERM
    for rank in (0, 1):
        assert not Path(f"/proc/{(tmp_path / f'pid{rank}').read_text()}").exists()


def test_processes_that_something_else_started_are_recognised() -> None:
    assert is_launched({"LOCAL_RANK": "0"})
    assert is_launched({"SLURM_NTASKS": "8"})
    assert not is_launched({"SLURM_NTASKS": "1"})
    assert not is_launched({})
