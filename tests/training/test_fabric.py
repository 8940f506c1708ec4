"""The scripts of the page on many GPUs, run as they stand there, on one and on two processes."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import assert_same

from fusecomp._core.files import read_tensors
from fusecomp._core.safetensors import read_safetensors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "many-gpus.md").read_text()
MINE, TRAIN = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
(RECIPE,) = (
    block
    for block in re.findall(r"^```py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    if "lightning_fabric" in block
)
ONE, OTHER = 'devices="auto", strategy="auto"', 'devices=2, strategy="ddp"'
# Ends every process once the first epoch is saved.
STOPPING = """
import lightning_fabric

class Stopping(lightning_fabric.Fabric):
    def save(self, path, state):
        super().save(path, state)
        if state["epoch"] == 1:
            raise SystemExit

lightning_fabric.Fabric = Stopping
"""


def run(folder: Path, script: str, *launcher: str) -> None:
    path = folder / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, *launcher, path.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Tensor]]:
    """The weights that the page's script gives on so many processes."""
    known: dict[int, dict[str, Tensor]] = {}

    def train(count: int) -> dict[str, Tensor]:
        if count not in known:
            folder = tmp_path_factory.mktemp(f"on-{count}")
            torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
            run(folder, MINE + TRAIN, *(torchrun if count > 1 else ()))
            assert (folder / "runs" / "mine" / "last.pt").exists()
            known[count] = dict(read_safetensors(folder / "model" / "weights.safetensors").tensors)
        return known[count]

    return train


@pytest.mark.heavy
def test_the_script_trains_on_one_and_on_two_processes(
    fitted: Callable[[int], dict[str, Tensor]],
) -> None:
    one, two = fitted(1), fitted(2)
    # Dropout draws other numbers on each process; cached features are the same.
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=0.03)
        assert torch.equal(two[name], weight) is name.startswith("encoder.")


@pytest.mark.heavy
@pytest.mark.parametrize("count", [1, 2])
def test_the_recipe_for_fabric_equals_fit_and_resumes(
    tmp_path: Path, count: int, fitted: Callable[[int], dict[str, Tensor]]
) -> None:
    pytest.importorskip("lightning_fabric", reason="needs the extra fabric")
    (tmp_path / "mine.py").write_text(MINE)
    assert ONE in RECIPE
    recipe = RECIPE if count == 1 else RECIPE.replace(ONE, OTHER)
    run(tmp_path, STOPPING + recipe)
    assert read_tensors(tmp_path / "fabric.ckpt")["epoch"] == 1
    run(tmp_path, recipe)
    state = read_tensors(tmp_path / "fabric.ckpt")
    assert (state["epoch"], state["steps"]) == (3, 12)
    assert_same(state["model"], dict(fitted(count)))
