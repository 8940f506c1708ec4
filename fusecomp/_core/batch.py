from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fusecomp._core.checks import require_strings
from fusecomp._core.tensors import check_int64, check_text_counts


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch of B triplets, as the inputs that an encoder takes.

    Args:
        reference: input of ``encode_image``: loaded images [B, ...], or row numbers [B] where
            the encoder looks images up.
        texts: input of ``encode_text``: T >= B strings, or row numbers [T].
        target: input of ``encode_image``.
        text_counts: int64 [B]; the number of the T texts that belong to each row, in order.
        target_ids: int64 [B]; positions in ``dataset.image_ids``.
        reference_ids: int64 [B]; positions in ``dataset.image_ids``.
        query_ids: B strings, to name rows in messages.
        reference_texts: input of ``encode_text``: a prompt for each reference, or None.

    Raises:
        TypeError: if ids or counts are no torch tensors.
        ValueError: if there is no row, a field does not fit the rows, or texts, query_ids or
            reference_texts are no list of strings.
    """

    reference: Any
    texts: Any
    target: Any
    text_counts: Tensor
    target_ids: Tensor
    reference_ids: Tensor
    query_ids: Sequence[str]
    reference_texts: Any = None

    def __post_init__(self) -> None:
        require_strings("texts", self.texts)
        require_strings("query_ids", self.query_ids)
        rows = len(self.query_ids)
        if rows == 0:
            raise ValueError("a batch needs a row at least, on every process")
        check_int64("target_ids", self.target_ids, rows, "query_ids")
        check_int64("reference_ids", self.reference_ids, rows, "query_ids")
        check_text_counts(self.text_counts, rows, len(self.texts))
        if self.reference_texts is not None:
            require_strings("reference_texts", self.reference_texts)
        given = self.reference, self.target, self.reference_texts
        for name, value in zip(("reference", "target", "reference_texts"), given, strict=True):
            if not isinstance(value, Tensor | np.ndarray | list | tuple):
                continue  # another input of an encoder of one's own
            shape = [len(value)] if isinstance(value, list | tuple) else list(value.shape)
            if shape[:1] != [rows]:
                expected = f"{rows} rows, as there are {rows} query_ids"
                raise ValueError(f"{name} must have {expected}, got {shape}")

    def __len__(self) -> int:
        return len(self.query_ids)

    def rows(self, start: int, stop: int) -> "Batch":
        """Return the rows from start to stop as a batch."""
        before = int(self.text_counts[:start].sum())
        after = before + int(self.text_counts[start:stop].sum())
        prompts = self.reference_texts
        return Batch(
            reference=self.reference[start:stop],
            texts=self.texts[before:after],
            target=self.target[start:stop],
            text_counts=self.text_counts[start:stop],
            target_ids=self.target_ids[start:stop],
            reference_ids=self.reference_ids[start:stop],
            query_ids=self.query_ids[start:stop],
            reference_texts=None if prompts is None else prompts[start:stop],
        )

    def __repr__(self) -> str:
        images = self.reference
        shape = list(images.shape) if isinstance(images, Tensor | np.ndarray) else [len(self)]
        return f"Batch({len(self)} triplets, reference {shape}, {len(self.texts)} texts)"
