from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from fusecomp._core.checks import whole_number
from fusecomp._core.similarity import normalize
from fusecomp.fusions._features import check_batchnorm, check_inputs
from fusecomp.fusions._published import PublishedWeights

# The published first layers concatenate, so that theirs are numbered from 1.
_NAMES = {
    "gate.0.": "gated_feature_composer.1.",
    "gate.2.": "gated_feature_composer.3.",
    "residual.0.": "res_info_composer.1.",
    "residual.2.": "res_info_composer.3.",
    "residual.4.": "res_info_composer.5.",
}


class TIRG(nn.Module):
    r"""The gated image feature plus a residual: text-image residual gating.

    With x = [image; text], two BatchNorms BN_g and BN_r, and two learned numbers a::

        gate     = W_g relu(BN_g(x))
        residual = W_2 relu(W_1 relu(BN_r(x)))
        query    = normalize(a_0 sigmoid(gate) * image + a_1 residual)

    In training, BatchNorm takes its statistics from the batch: rows are not independent, and a
    batch needs two at least.

    Reference:
        Vo, Jiang, Sun, Murphy, Li, Fei-Fei, Hays, "Composing Text and Image for Image Retrieval -
        an Empirical Odyssey", CVPR 2019, https://arxiv.org/abs/1812.07119

    Args:
        dim: D, the width of image features and of queries.
        text_dim: T, the width of text features; dim by default, as published.

    Shape:
        ``fusion(image [B, D], text [B, T]) -> query [B, D]``, one floating dtype; the inputs need
        not be normalised, the output has unit length, which the published module leaves to its
        loss.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if a width is no positive whole number; if the inputs are empty, or not [B, dim]
            and [B, text_dim] in the dtype and on the device of the weights (autocast may change
            the dtype); or on a single row in training.

    Example:
        >>> import torch
        >>> TIRG(dim=8, text_dim=4).eval()(torch.randn(2, 8), torch.randn(2, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(self, dim: int, text_dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim = whole_number("dim", dim, 1)
        self.text_dim = whole_number("text_dim", dim if text_dim is None else text_dim, 1)
        joint = dim + self.text_dim
        self.a = nn.Parameter(torch.tensor([1.0, 10.0]))
        self.gate = nn.Sequential(nn.BatchNorm1d(joint), nn.ReLU(), nn.Linear(joint, dim))
        self.residual = nn.Sequential(
            nn.BatchNorm1d(joint),
            nn.ReLU(),
            nn.Linear(joint, joint),
            nn.ReLU(),
            nn.Linear(joint, dim),
        )

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Queries [B, D] of unit length."""
        check_inputs(self, image, text, self.dim, self.text_dim)
        check_batchnorm(self, image)
        x = torch.cat((image, text), dim=-1)
        gated = self.a[0] * self.gate(x).sigmoid() * image
        return normalize(gated + self.a[1] * self.residual(x))

    @classmethod
    def from_published(cls, weights: Mapping[str, Tensor]) -> Self:
        """Build a TIRG from the fusion's entries of a state dict of google/tirg.

        ``a[2]`` and ``a[3]``, which do nothing, are left out, as is the scale
        ``normalization_layer.norm_s`` s of queries and targets. It belongs to the loss: it is
        ``InfoNCE(LearnableTemperature(start=1 / s**2))``, s = 4 at first.

        Args:
            weights: by their published names; the encoders' are taken out before.

        Raises:
            TypeError: if weights are no mapping.
            ValueError: naming a weight that is missing, unknown, ill-shaped or not finite.
        """
        published = PublishedWeights("TIRG", weights, elsewhere=("normalization_layer.norm_s",))
        dim, joint = published.shape("gated_feature_composer.3.weight")
        published.keep_first("a", 2)
        return published.load_into(lambda: cls(dim, joint - dim), _NAMES)
