"""The examples that look at a finished run; CI runs them on one."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["protocols.py", "reports.py"])
def test_without_a_run_the_command_that_makes_one_is_named(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, "--workdir", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: no finished run in {tmp_path}: python examples/fashioniq_repro.py "
        f"--workdir {tmp_path}\n"
    )
