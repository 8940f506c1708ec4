"""The state dict of a published module, read into a fusion of ours."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from fusecomp._core.weights import check_weights, count_parts, kind_of, without_wrappers

_Fusion = TypeVar("_Fusion", bound=nn.Module)


class PublishedWeights:
    """Weights of a fusion, under the names that their authors gave them.

    Left out are ``module.`` before every name, as DataParallel writes it, and the weights that
    belong ``elsewhere``, such as to the loss: a name that ends with a dot means all that begin so.
    """

    def __init__(
        self, fusion: str, weights: Mapping[str, Tensor], elsewhere: tuple[str, ...] = ()
    ) -> None:
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights must be a state dict, got {type(weights).__name__}")
        self._where = f"these are no complete weights of a published {fusion}"
        beginnings = tuple(name for name in elsewhere if name.endswith("."))
        self._weights = {
            name: tensor
            for name, tensor in without_wrappers(weights).items()
            if name not in elsewhere and not str(name).startswith(beginnings)
        }

    def shape(self, name: str, axes: int = 2) -> tuple[int, ...]:
        """Return the shape of a weight; ValueError unless it is there, dense, with these axes."""
        if name not in self._weights:
            raise ValueError(f"{self._where}: missing {name!r}")
        weight = self._weights[name]
        if (kind := kind_of(weight)) != "dense" or weight.ndim != axes:
            got = list(weight.shape) if kind == "dense" else kind
            raise ValueError(f"{self._where}: {name!r} must have {axes} axes, got {got}")
        return tuple(weight.shape)

    def count(self, beginning: str) -> int:
        """Return the number of different parts of names behind this beginning."""
        return count_parts(map(str, self._weights), beginning)

    def keep_first(self, name: str, entries: int) -> None:
        """Leave out the entries of a weight behind the first ones."""
        self.shape(name, axes=1)
        self._weights[name] = self._weights[name][:entries]

    def load_into(
        self, make: Callable[[], _Fusion], names: Mapping[str, str | tuple[str, ...]] | None = None
    ) -> _Fusion:
        """Make a fusion of the right sizes, and of these weights in their dtype.

        ``names`` tell how published names begin, by the beginning of our own; None where they are
        the same. Several are weights of one shape, whose rows ours holds one below the other.
        ValueError names a weight that is missing, unknown, ill-shaped or not finite.
        """
        try:
            with torch.device("meta"):  # nothing is allocated before the shapes are checked
                fusion = make()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{self._where}: {error}") from error
        own = {name: _published(name, names or {}) for name in fusion.state_dict()}
        self._check_names([part for parts in own.values() for part in parts])
        expected = {
            part: rows
            for name, tensor in fusion.state_dict().items()
            for part, rows in zip(own[name], _chunks(tensor, len(own[name])), strict=True)
        }
        check_weights(self._where, self._weights, expected)
        dtype = next(t.dtype for t in self._weights.values() if t.is_floating_point())
        fusion = fusion.to_empty(device="cpu").to(dtype)
        parts = {name: [self._weights[part] for part in own[name]] for name in own}
        # A count of batches has no rows to put below each other.
        fusion.load_state_dict({n: torch.cat(p) if len(p) > 1 else p[0] for n, p in parts.items()})
        return fusion

    def _check_names(self, expected: list[str]) -> None:
        missing = [name for name in expected if name not in self._weights]
        unknown = [name for name in self._weights if name not in expected]
        for problem, names in (("missing", missing), ("unknown", unknown)):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                raise ValueError(
                    f"{self._where}: {problem} {', '.join(map(repr, names[:3]))}{more}"
                )


def _chunks(tensor: Tensor, parts: int) -> tuple[Tensor, ...]:
    return tensor.chunk(parts) if parts > 1 else (tensor,)


def _published(name: str, names: Mapping[str, str | tuple[str, ...]]) -> tuple[str, ...]:
    for own, published in names.items():
        if name.startswith(own):
            beginnings = (published,) if isinstance(published, str) else published
            return tuple(beginning + name.removeprefix(own) for beginning in beginnings)
    return (name,)
