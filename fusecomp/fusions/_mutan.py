from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from fusecomp._core.checks import flag, whole_number
from fusecomp._core.similarity import normalize as unit
from fusecomp.fusions._features import check_inputs
from fusecomp.fusions._published import PublishedWeights

_NAMES = {
    "image_in.": "linear0.",
    "text_in.": "linear1.",
    "image_factors.": "merge_linear0.",
    "text_factors.": "merge_linear1.",
    "out.": "linear_out.",
}


class MUTAN(nn.Module):
    r"""A bilinear fusion of low rank: products of image and text features, summed.

    With R pairs of matrices P_r and Q_r::

        p     = W_i image,  q = W_t text                                             [B, width]
        z     = sum_r (P_r p) * (Q_r q)                                              [B, width]
        query = normalize(W_o z)

    Other bilinear fusions of its family (MLB, MFB, MFH, BLOCK) are variants of it, most of which
    end with a ReLU: their queries have no negative coordinate, which is a handicap against CLIP's
    features.

    Reference:
        Ben-Younes, Cadene, Cord, Thome, "MUTAN: Multimodal Tucker Fusion for Visual Question
        Answering", ICCV 2017, https://arxiv.org/abs/1705.06676

    Args:
        dim: D, the width of image features and of queries.
        text_dim: T, the width of text features; dim by default.
        rank: R. The published default is 15, for answers to questions about images; ours is 5.
        width: of the products; dim by default. The published default is 1600.
        normalize: whether the products' signed square roots, at unit length, take the place of z;
            off as published.

    Shape:
        ``fusion(image [B, D], text [B, T]) -> query [B, D]``, one floating dtype; the inputs need
        not be normalised, the output has unit length, which the published module's has not.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if a size is no positive whole number or normalize is neither True nor False; or
            if the inputs are empty, or not [B, dim] and [B, text_dim] in the dtype and on the
            device of the weights (autocast may change the dtype).

    Example:
        >>> import torch
        >>> MUTAN(dim=8, text_dim=4).eval()(torch.randn(2, 8), torch.randn(2, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        dim: int,
        text_dim: int | None = None,
        rank: int = 5,
        width: int | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim = whole_number("dim", dim, 1)
        self.text_dim = whole_number("text_dim", dim if text_dim is None else text_dim, 1)
        self.rank = rank = whole_number("rank", rank, 1)
        self.width = width = whole_number("width", dim if width is None else width, 1)
        self.normalize = flag("normalize", normalize)
        self.image_in = nn.Linear(dim, width)
        self.text_in = nn.Linear(self.text_dim, width)
        self.image_factors = nn.Linear(width, rank * width)
        self.text_factors = nn.Linear(width, rank * width)
        self.out = nn.Linear(width, dim)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Queries [B, D] of unit length."""
        check_inputs(self, image, text, self.dim, self.text_dim)
        p, q = self.image_in(image), self.text_in(text)
        products = self.image_factors(p) * self.text_factors(q)
        z = products.unflatten(-1, (self.rank, self.width)).sum(dim=1)
        if self.normalize:
            z = unit(_signed_root(z))
        return unit(self.out(z))

    def extra_repr(self) -> str:
        """The options that no layer shows."""
        return f"rank={self.rank}, normalize={self.normalize}"

    @classmethod
    def from_published(cls, weights: Mapping[str, Tensor], normalize: bool = False) -> Self:
        """Build a MUTAN from a state dict of ``Mutan`` of Cadene/block.bootstrap.pytorch.

        Args:
            weights: by their published names; ``linear0`` is the image's, ``linear1`` the text's.
            normalize: as above; weights cannot tell it.

        Raises:
            TypeError: if weights are no mapping.
            ValueError: naming a weight that is missing, unknown, ill-shaped or not finite.
        """
        published = PublishedWeights("MUTAN", weights)
        width, dim = published.shape("linear0.weight")
        _, text_dim = published.shape("linear1.weight")
        factors, _ = published.shape("merge_linear0.weight")
        rank = factors // max(width, 1)
        return published.load_into(lambda: cls(dim, text_dim, rank, width, normalize), _NAMES)


def _signed_root(z: Tensor) -> Tensor:
    """Return sign(z) sqrt(|z|), with a gradient of 0 at 0, where it has none."""
    size = torch.where(z == 0, torch.ones_like(z), z.abs())
    return z.sign() * size.sqrt()
