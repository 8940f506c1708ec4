"""Processes find one another and exchange what they have."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import Processes

from fusecomp import distributed
from fusecomp.losses import InfoNCE


def about() -> tuple[int, int]:
    return distributed.rank(), distributed.world_size()


def own_and_all() -> list[dict[str, torch.Tensor]]:
    own = {"own": torch.full((distributed.rank() + 1,), 7.0)}
    return distributed.gather_objects(own)


def test_one_process_is_a_world_of_its_own() -> None:
    distributed.join()
    distributed.barrier()
    assert about() == (0, 1)
    assert distributed.gather_objects("mine") == ["mine"]


def test_each_process_knows_its_number(two: Processes) -> None:
    assert two.run(about) == [(0, 2), (1, 2)]


def test_objects_come_by_rank_to_all(three: Processes) -> None:
    for gathered in three.run(own_and_all):
        assert [len(value["own"]) for value in gathered] == [1, 2, 3]


def averaged() -> list[float]:
    """Two weights with gradients: of the second one, the first process has none."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    weights[0].grad = torch.full((1,), 2.0 + 4 * distributed.rank())
    if distributed.rank() == 1:
        weights[1].grad = torch.full((1,), 6.0)
    distributed.average_gradients(weights)
    assert weights[2].grad is None
    return [weight.grad.item() for weight in weights[:2] if weight.grad is not None]


def test_a_gradient_that_only_some_have_counts_as_zero_elsewhere(two: Processes) -> None:
    assert two.run(averaged) == [[4.0, 3.0]] * 2


def of_negatives(counts: list[int]) -> list[torch.Tensor]:
    """Gradients by this process's rows of a batch that has two negatives a row."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(sum(counts), 4, 5, generator=generator, dtype=torch.float64)
    start = sum(counts[: distributed.rank()])
    own = features[start : start + counts[distributed.rank()]].requires_grad_()
    query, target, negatives = map(distributed.gather, (own[:, 0], own[:, 1], own[:, 2:]))
    loss = InfoNCE(0.2)(query, target, negatives=negatives)
    (gradient,) = torch.autograd.grad(loss, own)
    return [loss.detach(), gradient / distributed.world_size()]


def test_negatives_are_gathered_with_their_rows(two: Processes, three: Processes) -> None:
    """The backward pass of gather sums over the processes; what averages makes that one."""
    for processes, counts in ((two, [4, 4]), (two, [5, 3]), (three, [1, 5, 2])):
        loss, gradient = of_negatives([sum(counts)])
        found = processes.run(of_negatives, counts)
        assert all(abs(value - loss) < 1e-12 * loss for value, _ in found)
        gathered = torch.cat([own for _, own in found])
        assert (gathered - gradient).norm() < 1e-12 * gradient.norm()


def firsts(folder: Path) -> list[str]:
    """What the first has written lies there for all who have left the block."""
    with distributed.first_alone() as first:
        if first:
            time.sleep(0.2)
            (folder / "written.txt").write_text("by the first")
    return [path.read_text() for path in folder.iterdir()]


def failure(of: int) -> tuple[type, str] | None:
    """What this process sees where one has failed; and all can go on together."""
    try:
        with distributed.first_alone():
            if distributed.rank() == of:
                raise FileExistsError(f"process {of} has failed")
    except Exception as error:
        distributed.barrier()
        return type(error), str(error)
    return None


def test_the_others_wait_for_the_first(two: Processes, tmp_path: Path) -> None:
    assert two.run(firsts, tmp_path) == [["by the first"]] * 2
    (tmp_path / "written.txt").unlink()
    assert firsts(tmp_path) == ["by the first"]


@pytest.mark.parametrize("of", [0, 1])
def test_what_one_process_raises_alone_all_raise(two: Processes, of: int) -> None:
    assert two.run(failure, of) == [(FileExistsError, f"process {of} has failed")] * 2


def test_an_error_of_the_only_process_passes() -> None:
    assert failure(0) == (FileExistsError, "process 0 has failed")


# What torchrun sets for the second of two processes.
STARTED = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(("gpus", "chosen"), [(0, []), (1, []), (2, [1])])
def test_join_gives_each_process_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, gpus: int, chosen: list[int]
) -> None:
    found: list[int] = []
    for name, value in STARTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda: None)
    monkeypatch.setattr("atexit.register", lambda function: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.set_device", found.append)
    distributed.join()
    assert found == chosen


# Each writes a file of its own: lines that both print to one pipe may run into each other.
SCRIPT = """
import sys
from pathlib import Path
from fusecomp import distributed
assert distributed.world_size() == 1
distributed.join()
distributed.join()
from torch.distributed.nn import functional
# What torch imports later on must not hold the group, whose threads would then outlive it.
assert functional.broadcast.__defaults__ == (None,)
found = sorted(distributed.gather_objects(distributed.rank())), distributed.world_size()
Path(sys.argv[1], f"{distributed.rank()}.txt").write_text(str(found))
"""


def test_join_finds_the_processes_of_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    root = str(Path(__file__).parents[1])
    run = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["([0, 1], 2)"] * 2
