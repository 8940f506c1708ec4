"""Steps that the adapters of CLIP share."""

import hashlib
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from fusecomp._core.foreign import optional
from fusecomp._core.tensors import check_tensor

# Its tokens tell one tokenizer from another.
PROBE = "A red Dress,  sleeveless & long: it's 42 cm, from the Café"
# No feature depends on them: learning must not wait for their gradients.
_UNUSED = {"logit_scale", "logit_bias", "text_decoder"}


def side_by_parts(*image_parts: str) -> Callable[[str], str | None]:
    """Return a rule for ``parameters_by_side``: the image side has a part of such a name."""

    def side_of(name: str) -> str | None:
        parts = name.split(".")
        if not _UNUSED.isdisjoint(parts):
            return None
        return "text" if set(image_parts).isdisjoint(parts) else "image"

    return side_of


def probe_hash(tokens: Tensor) -> str:
    """Hash what a tokenizer makes of ``PROBE``."""
    return hashlib.sha256(str(tokens.tolist()).encode()).hexdigest()[:16]


def in_precision_of(tower: nn.Module, images: Tensor) -> Tensor:
    """Cast images to the dtype of the convolution that they enter.

    Images are loaded in float32, but the weights may be in half precision, and only some of them.
    """
    check_tensor(images, "images")
    kernel = next((weight for weight in tower.parameters() if weight.ndim == 4), None)
    if kernel is None or not images.is_floating_point():
        return images
    return images.to(kernel.dtype)


def check_model(model: object, methods: Sequence[str], kind: str, others: str) -> None:
    """Raise TypeError that says what belongs here, unless a model is a module with some methods."""
    for method in methods:
        if not callable(optional(model, method)):
            name = type(model).__name__
            raise TypeError(f"model must be {kind}, got {name}, which has no {method}; {others}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}")


def check_part(name: str, part: object, expected: str) -> None:
    """Raise TypeError that says what belongs in an argument, unless it can be called."""
    if not callable(part):
        raise TypeError(f"{name} must be callable, got {type(part).__name__}; pass {expected}")


def require_work(name: str, part: object, expected: str, work: Callable[[], bool]) -> None:
    """Raise TypeError that says what belongs in an argument, unless a part does its work.

    Args:
        name: the argument.
        part: its value.
        expected: what belongs there.
        work: uses the part on an example; true if it returns what it should.
    """
    found = f"{name} must be {expected}; got {type(part).__name__}"
    try:
        works = work()
    except Exception as error:
        raise TypeError(f"{found}, which fails ({type(error).__name__}: {error})") from error
    if not works:
        raise TypeError(f"{found}, which returns something else")


def check_vocabulary(tokens: Tensor, size: int | None) -> None:
    """Raise ValueError on a token that the model, of this many tokens, does not know."""
    if size is not None and (largest := int(tokens.max())) >= size:
        raise ValueError(
            f"the tokenizer gives token {largest}, but the model knows {size}: it belongs to "
            "another model"
        )
