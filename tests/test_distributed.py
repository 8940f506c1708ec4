"""Processes find one another and exchange what they have."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import Processes
from raising import own_error

from fusecomp import distributed
from fusecomp.losses import InfoNCE


def about() -> tuple[int, int]:
    return distributed.get_rank(), distributed.get_world_size()


def own_and_all() -> list[dict[str, torch.Tensor]]:
    own = {"own": torch.full((distributed.get_rank() + 1,), 7.0)}
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
    weights[0].grad = torch.full((1,), 2.0 + 4 * distributed.get_rank())
    if distributed.get_rank() == 1:
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
    start = sum(counts[: distributed.get_rank()])
    own = features[start : start + counts[distributed.get_rank()]].requires_grad_()
    query, target, negatives = map(distributed.gather, (own[:, 0], own[:, 1], own[:, 2:]))
    loss = InfoNCE(0.2)(query, target, negatives=negatives)
    (gradient,) = torch.autograd.grad(loss, own)
    return [loss.detach(), gradient / distributed.get_world_size()]


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
            if distributed.get_rank() == of:
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


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One without a word of any launcher; nothing is joined in truth."""
    for name in list(os.environ):
        if name in STARTED or name.startswith(("SLURM_", "OMPI_", "PMI_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda: None)
    monkeypatch.setattr("atexit.register", lambda function: None)
    distributed._warn_of_other_launcher.cache_clear()
    return monkeypatch


@pytest.mark.parametrize("name", [name for name in STARTED if name != "TORCHELASTIC_RUN_ID"])
@pytest.mark.parametrize("value", [None, "", "x", "-1", "1.5", " 1", "٣", "0x1"])
def test_a_variable_of_torchrun_that_is_none_is_named(
    environment: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    for key, given in STARTED.items():
        environment.setenv(key, given)
    distributed.join()
    if value is None:
        environment.delenv(name)
    elif name == "MASTER_ADDR" and value:
        return  # any name may be a host's
    else:
        environment.setenv(name, value)
    message = own_error(distributed.join)
    assert name in message
    assert "torchrun" in message


def test_a_rank_is_below_the_number_of_processes(environment: pytest.MonkeyPatch) -> None:
    for name, value in {**STARTED, "RANK": "2"}.items():
        environment.setenv(name, value)
    assert own_error(distributed.join) == "RANK=2 is not below WORLD_SIZE=2"


LAUNCHED = [
    {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"},
    {"WORLD_SIZE": "many"},
    {"SLURM_PROCID": "1", "SLURM_NTASKS": "8"},
    {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
    {"PMI_RANK": "0", "PMI_SIZE": "2"},
]


@pytest.mark.parametrize("variables", LAUNCHED, ids=str)
def test_processes_of_another_launcher_get_one_warning(
    environment: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.warns(RuntimeWarning, match="WORLD_SIZE") as caught:
        for _ in range(3):
            distributed.join()
    (warning,) = caught
    assert any(
        f"{name}={value}, but torch" in str(warning.message) for name, value in variables.items()
    )
    assert "init_process_group" in str(warning.message)


@pytest.mark.parametrize("value", ["1", "", " 1 "])
def test_one_process_of_another_launcher_gets_none(
    environment: pytest.MonkeyPatch, value: str
) -> None:
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        environment.setenv(name, value)
    distributed.join()


def joined_already() -> None:
    os.environ["WORLD_SIZE"] = "2"
    distributed.join()


def test_whoever_has_joined_by_himself_gets_none(two: Processes) -> None:
    two.run(joined_already)


# Each writes a file of its own: lines that both print to one pipe may run into each other.
SCRIPT = """
import sys
from pathlib import Path
from fusecomp import distributed
assert distributed.get_world_size() == 1
distributed.join()
distributed.join()
from torch.distributed.nn import functional
# What torch imports later on must not hold the group, whose threads would then outlive it.
assert functional.broadcast.__defaults__ == (None,)
found = sorted(distributed.gather_objects(distributed.get_rank())), distributed.get_world_size()
Path(sys.argv[1], f"{distributed.get_rank()}.txt").write_text(str(found))
"""


@pytest.mark.heavy
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
