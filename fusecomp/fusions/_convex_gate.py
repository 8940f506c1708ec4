from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from fusecomp._core.checks import number, whole_number
from fusecomp._core.similarity import normalize
from fusecomp.fusions._features import check_inputs
from fusecomp.fusions._published import PublishedWeights

_NAMES = {"joint.": "combiner_fc.0.", "scaler.1.": "scaler_fc.0.", "scaler.4.": "scaler_fc.3."}


class ConvexGate(nn.Module):
    r"""A point between image and text features, at a share that is learned.

    With i and t the image and text features at unit length::

        f     = relu(W_f [t; i])
        s     = sigmoid(W_2 dropout(relu(W_1 dropout(f))))         one number per query, the gate
        query = normalize(s t + (1 - s) i)

    It has 3 D^2 weights, 48 times fewer than ``Combiner``, and cannot leave the plane of its two
    inputs.

    Reference:
        Wen, Song, Chen, Wei, Nie, Chua, "Simple but Effective Raw-Data Level Multimodal Fusion
        for Composed Image Retrieval", SIGIR 2024, https://arxiv.org/abs/2404.15875 (DQU-CIR, whose
        larger gain comes from what it writes into images and texts before they are encoded)

    Args:
        dim: D, the width of the features.
        dropout: probability, in two places; 0.5 as published.

    Shape:
        ``fusion(image, text) -> query``, [B, D] each, one floating dtype; the inputs need not be
        normalised, as they are here; the output has unit length.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if dim is no positive whole number, dropout is outside [0, 1), or the two
            inputs differ in width, rows, dtype or device from each other or, in the last two, from
            the weights (autocast may change the dtype), are empty, or are not [B, dim].

    Example:
        >>> import torch
        >>> gate = ConvexGate(dim=8).eval()
        >>> query = gate(torch.randn(2, 8), torch.randn(2, 8))
        >>> query.shape, torch.allclose(query.norm(dim=-1), torch.ones(2))
        (torch.Size([2, 8]), True)
    """

    def __init__(self, dim: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.dim = dim = whole_number("dim", dim, 1)
        self.dropout = dropout = number("dropout", dropout, 0, 1)
        self.joint = nn.Linear(2 * dim, dim)
        self.scaler = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(dim, dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Queries [B, D] of unit length."""
        check_inputs(self, image, text, self.dim)
        i, t = normalize(image), normalize(text)
        gate = self._gate(i, t)
        return normalize(gate * t + (1 - gate) * i)

    def gate(self, image: Tensor, text: Tensor) -> Tensor:
        """The share s of the text [B, 1], in (0, 1); 1 - s is the image's."""
        check_inputs(self, image, text, self.dim)
        return self._gate(normalize(image), normalize(text))

    def _gate(self, i: Tensor, t: Tensor) -> Tensor:
        gate: Tensor = self.scaler(self.joint(torch.cat((t, i), dim=-1)).relu())
        return gate

    @classmethod
    def from_published(cls, weights: Mapping[str, Tensor], dropout: float = 0.5) -> Self:
        """Build a ConvexGate from the fusion's entries of a state dict of haokunwen/DQU-CIR.

        ``loss_weight`` w, which multiplies the cosines, belongs to the loss and is left out: it is
        ``InfoNCE(LearnableTemperature(start=1 / w))``, w = 10 at first.

        Args:
            weights: by their published names; the encoder's are taken out before.
            dropout: as above.

        Raises:
            TypeError: if weights are no mapping.
            ValueError: naming a weight that is missing, unknown, ill-shaped or not finite.
        """
        published = PublishedWeights("DQU-CIR", weights, elsewhere=("loss_weight",))
        dim, _ = published.shape("combiner_fc.0.weight")
        return published.load_into(lambda: cls(dim, dropout), _NAMES)
