from torch import Tensor, nn

from fusecomp._core.tensors import check_features, check_pair

__all__ = ["check_one_width"]


def check_one_width(fusion: nn.Module, image: Tensor, text: Tensor) -> None:
    """Raise ValueError unless both are features [B, D] of one dtype on one device."""
    check_features(image, "image")
    check_features(text, "text")
    if image.shape[1] != text.shape[1]:
        raise ValueError(
            f"{type(fusion).__name__} needs image and text features of one width, got image "
            f"features of width {image.shape[1]} and text features of width {text.shape[1]}: "
            "DualEncoder(..., dim=D) brings both to one, or take a fusion that accepts both widths"
        )
    check_pair(image, text, ("image", "text"))
