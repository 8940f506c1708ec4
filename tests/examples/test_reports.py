"""The examples that look at a finished run; CI runs them on one."""

import sys
from pathlib import Path
from types import ModuleType

import command_line
import protocols
import pytest
import reports


@pytest.mark.parametrize("example", [protocols, reports])
def test_without_a_run_the_command_that_makes_one_is_named(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{example.__name__}.py", "--workdir", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        command_line.command(example.main)
    assert stopped.value.code == (
        f"error: no finished run in {tmp_path}: python examples/fashioniq_repro.py "
        f"--workdir {tmp_path}"
    )
