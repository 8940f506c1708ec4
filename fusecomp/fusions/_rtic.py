from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from fusecomp._core.checks import number, whole_number
from fusecomp._core.similarity import normalize
from fusecomp.fusions._features import check_batchnorm, check_inputs
from fusecomp.fusions._published import PublishedWeights


class RTIC(nn.Module):
    r"""The image feature plus what residual blocks make of the joint one, under a gate.

    With BN a BatchNorm and act a leaky ReLU, each with weights of its own::

        f     = W_f act(BN([image; text]))
        g     = sigmoid(W_2 act(BN(W_1 f)))
        f     = f + W_5 act(BN(W_4 act(BN(W_3 f))))              once per block, D / 2 wide inside
        query = normalize(g * image + (1 - g) * f)

    This is the composition module; the graph network that the paper trains with it is not here.
    In training, BatchNorm takes its statistics from the batch: rows are not independent, and a
    batch needs two at least.

    Reference:
        Shin, Cho, Ko, Gu, "RTIC: Residual Learning for Text and Image Composition using Graph
        Convolutional Network", 2021, https://arxiv.org/abs/2104.03015

    Args:
        dim: D, the width of image features and of queries, 2 at least.
        text_dim: T, the width of text features; dim by default.
        blocks: how many residual blocks; 4 as in the published unified setting (1 in the optimal
            one).
        negative_slope: of the leaky ReLU; 0.01 as published, 0 for a ReLU.

    Shape:
        ``fusion(image [B, D], text [B, T]) -> query [B, D]``, one floating dtype; the inputs need
        not be normalised, the output has unit length, which the published module leaves to its
        loss.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if a size is no positive whole number or negative_slope is negative; if the
            inputs are empty, or not [B, dim] and [B, text_dim] in the dtype and on the device of
            the weights (autocast may change the dtype); or on a single row in training.

    Example:
        >>> import torch
        >>> RTIC(dim=8, text_dim=4).eval()(torch.randn(2, 8), torch.randn(2, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self, dim: int, text_dim: int | None = None, blocks: int = 4, negative_slope: float = 0.01
    ) -> None:
        super().__init__()
        self.dim = dim = whole_number("dim", dim, 2)
        self.text_dim = whole_number("text_dim", dim if text_dim is None else text_dim, 1)
        self.blocks = whole_number("blocks", blocks, 1)
        self.negative_slope = slope = number("negative_slope", negative_slope, 0)
        joint, half = dim + self.text_dim, dim // 2
        act = nn.LeakyReLU(slope)
        self.joint = nn.Sequential(nn.BatchNorm1d(joint), act, nn.Linear(joint, dim))
        self.gate = nn.Sequential(
            nn.Linear(dim, dim), nn.BatchNorm1d(dim), act, nn.Linear(dim, dim), nn.Sigmoid()
        )
        self.residuals = nn.ModuleList(
            nn.Sequential(
                *(nn.Linear(dim, half), nn.BatchNorm1d(half), act),
                *(nn.Linear(half, half), nn.BatchNorm1d(half), act),
                nn.Linear(half, dim),
            )
            for _ in range(self.blocks)
        )

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Queries [B, D] of unit length."""
        check_inputs(self, image, text, self.dim, self.text_dim)
        check_batchnorm(self, image)
        f = self.joint(torch.cat((image, text), dim=-1))
        g = self.gate(f)
        for residual in self.residuals:
            f = f + residual(f)
        return normalize(g * image + (1 - g) * f)

    @classmethod
    def from_published(cls, weights: Mapping[str, Tensor], negative_slope: float = 0.01) -> Self:
        """Build an RTIC from the composition module's state dict of nashory/rtic-gcn-pytorch.

        Args:
            weights: by their published names (``fs.``, ``gating.``, ``ee.``); those of encoders
                and of the graph network are taken out before.
            negative_slope: as above; weights cannot tell it.

        Raises:
            TypeError: if weights are no mapping.
            ValueError: naming a weight that is missing, unknown, ill-shaped or not finite.
        """
        published = PublishedWeights("RTIC", weights)
        dim, joint = published.shape("fs.module.2.weight")
        blocks = published.count("ee.")
        names = {f"residuals.{block}.": f"ee.{block}.module." for block in range(blocks)}
        return published.load_into(
            lambda: cls(dim, joint - dim, blocks, negative_slope),
            {"joint.": "fs.module.", "gate.": "gating.module.", **names},
        )
