"""Inputs of a fusion beyond image and text features."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusecomp._core.abilities import reference_texts_of, token_function
from fusecomp._core.identity import class_name
from fusecomp._core.keywords import needed_keywords, taken_keywords
from fusecomp._core.tensors import check_features, widen
from fusecomp.types import FUSION_KEYWORDS, SIDES, Dataset, Encoder, Fusion, Tokens


def require_tokens(encoder: Encoder, fusion: Fusion, needed: Sequence[str]) -> None:
    """Raise ValueError where a fusion needs tokens that the encoder does not give; else warn."""
    taken = taken_keywords(fusion, FUSION_KEYWORDS)
    for side in SIDES:
        name = f"{side}_tokens"
        if name not in taken or token_function(encoder, side) is not None:
            continue
        verb = "needs" if name in needed else "takes"
        problem = (
            f"{class_name(fusion)} {verb} {name}, which this {class_name(encoder)} does not give "
            "(see types.GivesTokens); a CachedEncoder keeps them if it is built with "
            f'tokens=["{side}"]'
        )
        if name in needed:
            raise ValueError(problem)
        warnings.warn(f"{problem}; here it gets {side} features alone", stacklevel=3)


def require_prompts(fusion: Fusion, dataset: Dataset) -> None:
    """Raise ValueError where a fusion needs prompts of references and the dataset has none."""
    if needed_keywords(fusion, ("reference_text",)) and not reference_texts_of(dataset):
        raise ValueError(
            f"the fusion needs reference_text, but this {class_name(dataset)} has no "
            "reference_texts, a prompt for each reference by its id"
        )


def fusion_inputs(
    given: Mapping[str, object],
    taken: Sequence[str],
    needed: Sequence[str],
    counts: Tensor | None,
    rows: int,
    dtype: torch.dtype | None,
) -> dict[str, Tensor | Tokens]:
    """Return those of the given inputs that a fusion takes, by keyword: one for each of B rows.

    ``counts`` int64 [B] are the numbers of texts of each row, None where each has one.
    """
    inputs: dict[str, Tensor | Tokens] = {}
    for name in taken:
        if (value := given[name]) is not None:
            inputs[name] = _checked(name, value, dtype)
        elif name in needed:
            raise ValueError(f"the fusion needs {name}: pass it to compose")
    for name, value in inputs.items():
        expected = rows if counts is None or name != "text_tokens" else int(counts.sum())
        if len(value) != expected:
            kind = "texts" if name == "text_tokens" else "images"
            raise ValueError(f"{name} has {len(value)} rows, but there are {expected} {kind}")
    tokens = inputs.get("text_tokens")
    if counts is not None and isinstance(tokens, Tokens):
        inputs["text_tokens"] = tokens.join(counts)
    return inputs


def _checked(name: str, value: object, dtype: torch.dtype | None) -> Tensor | Tokens:
    if name == "reference_text":
        return widen(check_features(value, name), name).to(dtype)
    if not isinstance(value, Tokens):
        raise TypeError(f"{name} must be fusecomp.types.Tokens, got {type(value).__name__}")
    return Tokens(widen(value.values, name).to(dtype), value.mask)
