from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from fusecomp._core.checks import number, whole_number
from fusecomp._core.similarity import normalize
from fusecomp.fusions._features import check_batchnorm, check_inputs
from fusecomp.fusions._published import PublishedWeights


class Concat(nn.Module):
    r"""Two layers on the concatenated features: the baseline that every table has.

    With x = [image; text] and two BatchNorms BN_1 and BN_2::

        h     = relu(BN_2(W_1 relu(BN_1(x))))
        query = normalize(W_2 dropout(h))

    In training, BatchNorm takes its statistics from the batch: rows are not independent, and a
    batch needs two at least.

    Reference:
        Vo, Jiang, Sun, Murphy, Li, Fei-Fei, Hays, "Composing Text and Image for Image Retrieval -
        an Empirical Odyssey", CVPR 2019, https://arxiv.org/abs/1812.07119

    Args:
        dim: D, the width of image features and of queries.
        text_dim: T, the width of text features; dim by default, as published.
        dropout: probability; 0.1 as published.

    Shape:
        ``fusion(image [B, D], text [B, T]) -> query [B, D]``, one floating dtype; the inputs need
        not be normalised, the output has unit length, which the published module leaves to its
        loss.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if a width is no positive whole number or dropout is outside [0, 1); if the
            inputs are empty, or not [B, dim] and [B, text_dim] in the dtype and on the device of
            the weights (autocast may change the dtype); or on a single row in training.

    Example:
        >>> import torch
        >>> Concat(dim=8, text_dim=4).eval()(torch.randn(2, 8), torch.randn(2, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(self, dim: int, text_dim: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        self.dim = dim = whole_number("dim", dim, 1)
        self.text_dim = whole_number("text_dim", dim if text_dim is None else text_dim, 1)
        self.dropout = dropout = number("dropout", dropout, 0, 1)
        joint = dim + self.text_dim
        self.layers = nn.Sequential(
            nn.BatchNorm1d(joint),
            nn.ReLU(),
            nn.Linear(joint, joint),
            nn.BatchNorm1d(joint),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(joint, dim),
        )

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Queries [B, D] of unit length."""
        check_inputs(self, image, text, self.dim, self.text_dim)
        check_batchnorm(self, image)
        return normalize(self.layers(torch.cat((image, text), dim=-1)))

    @classmethod
    def from_published(cls, weights: Mapping[str, Tensor], dropout: float = 0.1) -> Self:
        """Build a Concat from the fusion's entries of a state dict of google/tirg.

        ``normalization_layer.norm_s`` belongs to the loss and is left out, see
        ``TIRG.from_published``.

        Args:
            weights: by their published names; the encoders' are taken out before.
            dropout: as above.

        Raises:
            TypeError: if weights are no mapping.
            ValueError: naming a weight that is missing, unknown, ill-shaped or not finite.
        """
        published = PublishedWeights("Concat", weights, elsewhere=("normalization_layer.norm_s",))
        dim, joint = published.shape("composer.m.6.weight")
        return published.load_into(
            lambda: cls(dim, joint - dim, dropout), {"layers.": "composer.m."}
        )
