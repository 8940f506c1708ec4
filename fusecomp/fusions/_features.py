"""Checks of what a fusion takes: shapes and dtypes alone, as they run at every call."""

from torch import Tensor, is_autocast_enabled, nn

from fusecomp._core.tensors import check_alike, check_features, check_pair


def check_one_width(fusion: nn.Module, image: Tensor, text: Tensor) -> None:
    """Raise ValueError unless both are features [B, D] of one dtype on one device."""
    check_pair(image, text, ("image", "text"), one_width=False)
    if image.shape[1] != text.shape[1]:
        raise ValueError(
            f"{type(fusion).__name__} needs image and text features of one width, got image "
            f"features of width {image.shape[1]} and text features of width {text.shape[1]}: "
            "DualEncoder(..., dim=D) brings both to one, or take a fusion that accepts both widths"
        )


def check_inputs(
    fusion: nn.Module, image: Tensor, text: Tensor, dim: int, text_dim: int | None = None
) -> None:
    """Raise ValueError unless image [B, dim] and text [B, text_dim] fit each other and the weights.

    ``text_dim`` is None for a fusion that needs one width.
    """
    name = type(fusion).__name__
    if text_dim is None:
        check_one_width(fusion, image, text)
        if image.shape[1] != dim:
            raise ValueError(f"this {name} has dim={dim}, got features {list(image.shape)}")
    else:
        check_features(image, "image")
        check_features(text, "text")
        if (image.shape[1], text.shape[1]) != (dim, text_dim) or len(image) != len(text):
            raise ValueError(
                f"this {name} needs image [B, {dim}] and text [B, {text_dim}], got image "
                f"{list(image.shape)} and text {list(text.shape)}"
            )
        check_alike(image, text, ("image", "text"))
    check_dtype(fusion, image)


def check_dtype(fusion: nn.Module, image: Tensor) -> None:
    """Raise ValueError unless the weights are on the features' device, in their dtype.

    Autocast may change the dtype.
    """
    name = type(fusion).__name__
    weight = next(fusion.parameters(), image)  # quantised, it has none
    if weight.device != image.device:
        raise ValueError(
            f"this {name} is on {weight.device} and image on {image.device}: move both to one"
        )
    if weight.dtype != image.dtype and not is_autocast_enabled(image.device.type):
        raise ValueError(
            f"this {name}'s weights are {weight.dtype} and image is {image.dtype}: bring both to "
            f"one dtype, by .to({weight.dtype}) on the features, as ComposedEncoder.compose does"
        )


def check_batchnorm(fusion: nn.Module, image: Tensor) -> None:
    """Raise ValueError on a single row in training mode, which has no variance."""
    if fusion.training and len(image) < 2:
        raise ValueError(
            f"{type(fusion).__name__} has BatchNorm, which needs 2 rows at least in training mode, "
            f"got image {list(image.shape)}: take a larger batch, or call .eval() to query"
        )
