from torch import Tensor, nn

from fusecomp._core.similarity import normalize
from fusecomp.fusions._features import check_one_width


class Sum(nn.Module):
    """The normalised element-wise sum of image and text features.

    ``query = normalize(image + text)``

    It has no parameters. Stage 1 of the paper tunes the text encoder under it, so that texts
    become displacement vectors of the image space.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022,
        https://github.com/ABaldrati/CLIP4Cir

    Shape:
        ``fusion(image, text) -> query``, [B, D] each, one floating dtype; the inputs need not
        be normalised, the output has unit length.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if the two inputs differ in width, rows or dtype, are empty, or are not [B, D].

    Example:
        >>> import torch
        >>> Sum()(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Return queries [B, D] of unit length."""
        check_one_width(self, image, text)
        return normalize(image + text)
