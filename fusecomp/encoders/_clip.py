"""Steps that the adapters of CLIP share."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fusecomp._core.checks import no_class
from fusecomp._core.foreign import optional
from fusecomp._core.tensors import check_tensor
from fusecomp.encoders._parameters_by_side import parameters_by_side

# Its tokens tell one tokenizer from another.
PROBE = "A red Dress,  sleeveless & long: it's 42 cm, from the Café"
# No feature depends on them: learning must not wait for their gradients.
_UNUSED = {"logit_scale", "logit_bias", "text_decoder"}


def clip_towers(encoder: nn.Module, *image_parts: str) -> dict[str, tuple[str, ...]]:
    """Return the names of each side's parameters; those with one of these parts are the image's."""

    def side_of(name: str) -> str | None:
        parts = name.split(".")
        if not _UNUSED.isdisjoint(parts):
            return None
        return "text" if set(image_parts).isdisjoint(parts) else "image"

    return parameters_by_side(encoder, side_of)


def in_precision_of(tower: nn.Module, images: Tensor) -> Tensor:
    """Cast images to the dtype of the convolution that they enter, which may be half precision."""
    check_tensor(images, "images")
    kernel = next((weight for weight in tower.parameters() if weight.ndim == 4), None)
    if kernel is None or not images.is_floating_point():
        return images
    return images.to(kernel.dtype)


def check_model(model: object, methods: Sequence[str], kind: str, other_adapter: str) -> None:
    """Raise TypeError that says what belongs here, unless a model is a module with some methods."""
    no_class("model", model)
    for method in methods:
        if not callable(optional(model, method)):
            raise TypeError(
                f"model must be {kind}, got {type(model).__name__}, which has no {method}; "
                f"{other_adapter}"
            )
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}")


def check_part(
    name: str, part: object, expected: str, works: Callable[[Any], bool] | None = None
) -> None:
    """Raise TypeError that says what is expected, unless a part can be called and ``works``."""
    no_class(name, part)
    if not callable(part):
        raise TypeError(f"{name} must be callable, got {type(part).__name__}; pass {expected}")
    found = f"{name} must be {expected}; got {type(part).__name__}"
    try:
        working = works is None or works(part)
    except Exception as error:
        raise TypeError(f"{found}, which fails ({type(error).__name__}: {error})") from error
    if not working:
        raise TypeError(f"{found}, which returns something else")


def check_vocabulary(tokens: Tensor, size: int | None) -> None:
    """Raise ValueError on a token that a model of ``size`` tokens does not know."""
    if size is not None and (largest := int(tokens.max())) >= size:
        raise ValueError(
            f"the tokenizer gives token {largest}, but the model knows {size}: it belongs to "
            "another model"
        )
