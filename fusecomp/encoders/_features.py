"""Features by name, and their computation from an encoder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp.loading import load_pictures, require_files
from fusecomp.modules import device_of, inference
from fusecomp.progress import progress
from fusecomp.protocols import Dataset, Encoder
from fusecomp.similarity import non_finite_rows, widen

__all__ = ["FeatureTable", "compute_table"]

# What was probably meant where names and features are confused.
_ORDER = "from_arrays takes image_ids, images, texts, text_features"


class FeatureTable(nn.Module):
    """Features [N, D] with a name for each row."""

    features: Tensor

    def __init__(self, side: str, names: Sequence[str], features: NDArray[Any] | Tensor) -> None:
        super().__init__()
        kinds = {type(name).__name__ for name in names if not isinstance(name, str)}
        if kinds or isinstance(names, str):
            found = f"{type(names).__name__} of {', '.join(sorted(kinds)) or 'str'}"
            raise TypeError(f"{side} names must be a list of strings, got {found}; {_ORDER}")
        try:
            features = torch.as_tensor(features)
        except (TypeError, ValueError, RuntimeError) as error:
            found = type(features).__name__
            raise TypeError(f"{side} features must be an array, got {found}; {_ORDER}") from error
        if features.ndim != 2 or features.numel() == 0 or not features.is_floating_point():
            raise ValueError(
                f"{side} features must be floating [N, D] and not empty, "
                f"got {features.dtype} {list(features.shape)}"
            )
        if len(names) != len(features):
            raise ValueError(f"{len(names)} {side} names but {len(features)} rows of features")
        self.side = side
        self.rows = {name: row for row, name in enumerate(names)}
        if len(self.rows) != len(names):
            twice = next(name for row, name in enumerate(names) if self.rows[name] != row)
            raise ValueError(f"the {side} {twice!r} occurs twice")
        for row in non_finite_rows(features)[:1]:
            raise ValueError(f"the features of {side} {names[row]!r} hold NaN or infinity")
        # Not persistent: a model's checkpoint holds weights, not features.
        self.register_buffer("features", features, persistent=False)

    def extra_repr(self) -> str:
        """Size and kind."""
        rows, width = self.features.shape
        return f"{rows} x {width}, {self.features.dtype}"

    def find(self, names: Sequence[str]) -> Tensor:
        """Row numbers, int64 [B].

        Raises:
            ValueError: naming the first unknown one.
        """
        try:
            return torch.tensor([self.rows[name] for name in names], dtype=torch.int64)
        except KeyError as error:
            raise ValueError(
                f"no cached features for the {self.side} {error.args[0]!r} "
                f"(of {len(self.rows)} cached); build the cache from every dataset you use"
            ) from None

    def forward(self, rows: Tensor | Sequence[str]) -> Tensor:
        """Features [B, D], float32 at least, of row numbers or names."""
        if not isinstance(rows, Tensor):
            rows = self.find(rows).to(self.features.device)
        return widen(self.features.index_select(0, rows))


def compute_table(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    side: str,
    batch_size: int,
    workers: int | None = None,
    *,
    below_head: bool = False,
) -> FeatureTable:
    """Encode one side of the datasets: every image, or every text, once."""
    if side == "image":
        names = list(dict.fromkeys(i for data in datasets for i in data.image_ids))
    else:
        names = list(dict.fromkeys(t for data in datasets for t in data.texts()))
    if not names:
        raise ValueError(f"the datasets name no {side} to encode")
    device = device_of(encoder)
    encode = (
        partial(encoder.encode_tower, side)  # type: ignore[attr-defined]
        if below_head
        else getattr(encoder, f"encode_{side}")
    )
    blocks = [
        list(range(i, min(i + batch_size, len(names)))) for i in range(0, len(names), batch_size)
    ]
    if side in getattr(encoder, "lookup", {}):
        rows = encoder.lookup[side](names).to(device)  # type: ignore[attr-defined]
        inputs: Any = (rows[block] for block in blocks)
    else:
        if side == "text":
            inputs = ([names[i] for i in block] for block in blocks)
        else:
            pictures = _pictures(encoder, datasets, names, blocks, workers)
            inputs = (batch.to(device, non_blocking=True) for batch in pictures)
        inputs = progress(inputs, len(names), f"encoding {side}s", f"{side}s", per_item=batch_size)
    encoded = []
    with inference(encoder):
        for block, batch in zip(blocks, inputs, strict=True):
            features = widen(encode(batch))
            if len(features) != len(block):
                raise ValueError(
                    f"encode_{side} returned {len(features)} rows for {len(block)} inputs"
                )
            encoded.append(features)
    return FeatureTable(side, names, torch.cat(encoded)).to(device)


def _pictures(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    image_ids: Sequence[str],
    blocks: Sequence[list[int]],
    workers: int | None,
) -> Any:
    load = getattr(encoder, "load", None)
    if load is None:
        raise ValueError(
            f"{type(encoder).__name__} has no load: give it one (path -> tensor) to read pictures"
        )
    paths: dict[str, Path] = {}
    for data in datasets:
        for image_id in data.image_ids:
            paths.setdefault(image_id, data.path(image_id))
    files = [paths[image_id] for image_id in image_ids]
    require_files(files)
    return load_pictures(files, load, blocks, workers)
