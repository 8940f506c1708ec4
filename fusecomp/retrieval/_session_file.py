"""The JSON of a session."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusecomp._core.checks import shown
from fusecomp._core.strict_json import parse_json
from fusecomp.retrieval._encode_images import of_one_encoder
from fusecomp.retrieval._gallery import Gallery
from fusecomp.retrieval._round import Features, Round

_FORMAT = "fusecomp.session/1"
_TOP = ("format", "key", "strategy", "steps")
# By the bytes of a number.
_FLOATS = {4: "<f4", 8: "<f8"}


class Judgement(NamedTuple):
    """An image of the gallery that was liked, or else disliked, and its features [1, D]."""

    image_id: str
    liked: bool
    features: Tensor

    def __repr__(self) -> str:
        return f"Judgement({self.image_id!r}, liked={self.liked})"


Step = Round | Judgement


class Asked(NamedTuple):
    """A round as it is kept."""

    reference: str | Features | None
    text: str | None
    weight: float


class Judged(NamedTuple):
    """A judgement as it is kept."""

    image_id: str
    liked: bool


def write_session(steps: tuple[Step, ...], key: str, strategy: str) -> str:
    """Return the JSON of a session."""
    kept = [_kept(step) for step in steps]
    return json.dumps(dict(zip(_TOP, (_FORMAT, key, strategy, kept), strict=True)), allow_nan=False)


def _kept(step: Step) -> dict[str, object]:
    if isinstance(step, Judgement):
        return {"image": step.image_id, "liked": step.liked}
    asked: dict[str, object] = {"text": step.text, "weight": step.weight}
    if step.reference is None and step.features is not None:
        values = step.features.cpu().numpy()
        return asked | {
            "features": b64encode(values.astype(_FLOATS[values.itemsize]).tobytes()).decode()
        }
    return asked | {"reference": step.reference}


def read_session(text: str, gallery: Gallery, strategy: str) -> list[Asked | Judged]:
    """Return the steps of a session's JSON; ValueError names what is wrong with it."""
    if not isinstance(text, str | bytes):
        raise ValueError(f"a session must be a string of JSON, got {shown(text)}")
    content = parse_json(text, "session")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"this is no session, whose format would be {_FORMAT!r}: {shown(content)}")
    _require_fields("session", content, _TOP)
    key, made_by, steps = (content[name] for name in _TOP[1:])
    _require("session", "key", key, str)
    _require("session", "steps", steps, list)
    if key and gallery.key and not of_one_encoder(key, gallery.key):
        raise ValueError(
            f"this session was held with the encoder {key!r}, the gallery holds features of "
            f"{gallery.key!r}: ask anew"
        )
    if made_by != strategy:
        raise ValueError(
            f"this session was held with the strategy {shown(made_by)}, pass it as strategy=; "
            f"got {strategy}"
        )
    return list(_read_steps(steps, gallery.features.shape[1]))


def _read_steps(steps: list[Any], width: int) -> Iterator[Asked | Judged]:
    for number, step in enumerate(steps):
        where = f"steps[{number}]"
        _require("session", where, step, dict)
        if "image" in step:
            _require_fields(where, step, ("image", "liked"))
            _require(where, "image", step["image"], str)
            _require(where, "liked", step["liked"], bool)
            yield Judged(step["image"], step["liked"])
            continue
        field = "features" if "features" in step else "reference"
        _require_fields(where, step, (field, "text", "weight"))
        _require(where, "text", step["text"], str | None)
        _require(where, "weight", step["weight"], int | float)
        reference = step[field]
        if field == "features":
            reference = Features(_features(where, reference, width))
        else:
            _require(where, "reference", reference, str | None)
        yield Asked(reference, step["text"], step["weight"])


def _features(where: str, text: object, width: int) -> Tensor:
    """Return features [1, D] of base64."""
    _require(where, "features", text, str)
    try:
        content = b64decode(str(text), validate=True)
        values = np.frombuffer(content, _FLOATS[len(content) // width])
        found = torch.from_numpy(values.astype(values.dtype.newbyteorder("="))).view(1, width)
    except (ValueError, KeyError, RuntimeError):
        raise ValueError(
            f"{where} of the session: features must be base64 of {width} floats, got {shown(text)}"
        ) from None
    if not found.isfinite().all():
        raise ValueError(f"{where} of the session: features hold NaN or infinity")
    return found


def _require_fields(where: str, found: dict[str, Any], expected: tuple[str, ...]) -> None:
    if found.keys() != {*expected}:
        raise ValueError(
            f"{where} must have the fields {', '.join(expected)}, got {shown([*found])}"
        )


def _require(where: str, field: str, value: object, kind: Any) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        name = kind.__name__ if isinstance(kind, type) else kind
        raise ValueError(f"{where}: {field} must be {name}, got {shown(value)}")
