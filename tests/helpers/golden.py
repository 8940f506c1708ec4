"""Golden numbers of published code, and how closely ours must equal them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).resolve().parents[1] / "data"
# Of CLIP4Cir and OpenAI's CLIP.
PUBLISHED = DATA / "published"
# (rtol, atol); gradients that are 0 by mathematics hold noise.
TOLERANCES = {torch.float64: (1e-9, 1e-10), torch.float32: (1e-4, 1e-5)}


class Golden:
    """The arrays of one system, as tensors of one dtype; whole numbers keep theirs."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype
        with np.load(DATA / "fusions" / f"{name}.npz") as arrays:
            tensors = {n: torch.from_numpy(arrays[n]) for n in arrays if n != "config"}
        self._tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name].clone()

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose names begin so, by the rest of their names."""
        names = (name for name in self._tensors if name.startswith(prefix))
        return {name.removeprefix(prefix): self[name] for name in names}

    def inputs(self, *names: str) -> list[Tensor]:
        """Inputs that gather a gradient."""
        return [self[f"in/{name}"].requires_grad_() for name in names]

    def check(self, actual: Tensor | None, name: str, rows: slice | None = None) -> None:
        """Assert that a tensor, or some rows of it, is the golden one."""
        expected = self[name]
        if rows is not None and actual is not None:
            actual, expected = actual[rows], expected[rows]
        self.assert_close(actual, expected, name)

    def assert_close(self, actual: Tensor | None, expected: Tensor, name: str) -> None:
        """Assert that a tensor is as near to another one as golden numbers must be."""
        assert actual is not None, name
        rtol, atol = TOLERANCES[self.dtype]
        torch.testing.assert_close(
            actual.detach(), expected.detach(), rtol=rtol, atol=atol, msg=lambda m: f"{name}: {m}"
        )
