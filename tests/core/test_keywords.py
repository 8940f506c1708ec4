"""What a part names, it gets."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusecomp import fusions, losses
from fusecomp._core.keywords import require_known, taken_keywords
from fusecomp.losses import CombinedLoss, CosineAlignmentLoss
from fusecomp.types import FUSION_KEYWORDS, LOSS_KEYWORDS


class Named(nn.Module):
    def forward(self, query: Tensor, *, target_ids: Tensor | None = None) -> Tensor:
        return query


def positional(query: Tensor, target_ids: Tensor, /, **more: Any) -> Tensor:
    return query


def combined(*losses: Any) -> CombinedLoss:
    return CombinedLoss({f"part{number}": (1.0, loss) for number, loss in enumerate(losses)})


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (lambda a, b: a, ()),
        (lambda a, b, reference_ids: a, ("reference_ids",)),
        (lambda a, reference_ids, target_ids: a, ("target_ids", "reference_ids")),
        (lambda a, **ids: a, ()),
        (lambda a, *target_ids: a, ()),
        (positional, ()),
        (Named(), ("target_ids",)),
        (torch.compile(Named(), backend="eager"), ("target_ids",)),
        (partial(lambda a, target_ids: a, 1), ("target_ids",)),
        (torch.add, ()),
        (combined(torch.add, lambda a, b, **ids: a), ()),
        (combined(torch.add, Named()), ("target_ids",)),
        (combined(Named(), combined(CosineAlignmentLoss())), ("target_ids", "reference_ids")),
        (torch.compile(combined(Named()), backend="eager"), ("target_ids",)),
    ],
)
def test_keywords_that_a_part_names(part: Any, expected: tuple[str, ...]) -> None:
    assert taken_keywords(part, ("target_ids", "reference_ids")) == expected
    assert taken_keywords(part, ()) == ()


FUSION, LOSS = FUSION_KEYWORDS, LOSS_KEYWORDS


@pytest.mark.parametrize(
    ("kind", "part", "wrong", "meant"),
    [
        ("fusion", lambda image, text, image_token=None: image, "image_token", "image_tokens"),
        ("fusion", lambda image, text, *, text_token=1: image, "text_token", "text_tokens"),
        ("fusion", lambda i, t, reference_texts=(): i, "reference_texts", "reference_text"),
        ("loss", lambda query, target, target_id=None: query, "target_id", "target_ids"),
        ("loss", lambda query, target, references=None: query, "references", "reference"),
        ("loss", lambda query, target, similarty=None: query, "similarty", "similarity"),
    ],
)
def test_a_misspelt_keyword_is_named_even_with_a_default(
    kind: str, part: Any, wrong: str, meant: str
) -> None:
    offered = FUSION if kind == "fusion" else LOSS
    with pytest.raises(ValueError, match=rf"the {kind} <lambda> names {wrong}, .*: write {meant} "):
        require_known(kind, part, offered)


@pytest.mark.parametrize(
    "part",
    [
        lambda image, text, scale=1.0: image,
        lambda image, text, image_tokens=None, image_token=None: image,
        lambda image, text, **image_token: image,
        lambda image_token, text_token: image_token,
        torch.add,
    ],
    ids=["of its own", "both", "any", "of two tensors", "builtin"],
)
def test_what_is_like_no_missing_keyword_passes(part: Any) -> None:
    require_known("fusion", part, FUSION)


def test_every_part_of_the_package_passes() -> None:
    for name in fusions.__all__:
        require_known("fusion", getattr(fusions, name).forward.__get__(object()), FUSION)
    for name in losses.__all__:
        if issubclass(getattr(losses, name), nn.Module) and name.endswith(("Loss", "NCE")):
            require_known("loss", getattr(losses, name).forward.__get__(object()), LOSS)
