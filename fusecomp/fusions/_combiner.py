from collections import OrderedDict
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from fusecomp._core.checks import number, whole_number
from fusecomp._core.similarity import normalize
from fusecomp.fusions._features import check_inputs
from fusecomp.fusions._published import PublishedWeights


class Combiner(nn.Module):
    r"""A learned mixture plus a convex combination of text and image features.

    With t and i the text and image features::

        r     = [dropout(relu(W_t t)); dropout(relu(W_i i))]
        v     = W_o dropout(relu(W_c r))
        s     = sigmoid(W_2 dropout(relu(W_1 r)))          one number per query, the gate
        query = normalize(v + s t + (1 - s) i)

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022,
        https://github.com/ABaldrati/CLIP4Cir

    Args:
        dim: D, the width of the features.
        projection_dim: rows of W_t and of W_i; 4 x dim by default, as published.
        hidden_dim: rows of W_c and of W_1; 8 x dim by default, as published.
        dropout: probability, in four places; 0.5 as published.

    Shape:
        ``fusion(image, text) -> query``, [B, D] each, one floating dtype; the inputs must not
        be normalised if published weights are to work, the output has unit length.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if a size is no positive whole number, dropout is outside [0, 1), or the two
            inputs differ in width, rows, dtype or device from each other or, in the last two, from
            the weights (autocast may change the dtype), are empty, or are not [B, dim].

    Example:
        >>> import torch
        >>> combiner = Combiner(dim=8).eval()
        >>> query = combiner(torch.randn(2, 8), torch.randn(2, 8))
        >>> query.shape, torch.allclose(query.norm(dim=-1), torch.ones(2))
        (torch.Size([2, 8]), True)
    """

    def __init__(
        self,
        dim: int,
        projection_dim: int | None = None,
        hidden_dim: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.dim = dim = whole_number("dim", dim, 1)
        projection_dim = 4 * dim if projection_dim is None else projection_dim
        self.projection_dim = projection_dim = whole_number("projection_dim", projection_dim, 1)
        hidden_dim = 8 * dim if hidden_dim is None else hidden_dim
        self.hidden_dim = hidden_dim = whole_number("hidden_dim", hidden_dim, 1)
        self.dropout = dropout = number("dropout", dropout, 0, 1)
        # The names of the layers are those of the published checkpoints.
        self.text_projection_layer = nn.Linear(dim, projection_dim)
        self.image_projection_layer = nn.Linear(dim, projection_dim)
        self.combiner_layer = nn.Linear(2 * projection_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, dim)
        self.dynamic_scalar = nn.Sequential(
            OrderedDict(
                {
                    "0": nn.Linear(2 * projection_dim, hidden_dim),
                    "1": _ReluDropout(dropout),  # two layers in the published code
                    "3": nn.Linear(hidden_dim, 1),
                    "4": nn.Sigmoid(),
                }
            )
        )
        self.relu_dropout = _ReluDropout(dropout)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Return queries [B, D] of unit length."""
        joint = self._joint(image, text)
        mixture = self.output_layer(self.relu_dropout(self.combiner_layer(joint)))
        gate = self.dynamic_scalar(joint)
        return normalize(mixture + gate * text + (1 - gate) * image)

    def gate(self, image: Tensor, text: Tensor) -> Tensor:
        """Return the convex coefficient s of the text [B, 1], in (0, 1); 1 - s is the image's."""
        gate: Tensor = self.dynamic_scalar(self._joint(image, text))
        return gate

    def _joint(self, image: Tensor, text: Tensor) -> Tensor:
        check_inputs(self, image, text, self.dim)
        projected = (self.text_projection_layer(text), self.image_projection_layer(image))
        joint: Tensor = self.relu_dropout(torch.cat(projected, dim=-1))
        return joint

    @classmethod
    def from_published(cls, weights: Mapping[str, Tensor], dropout: float = 0.5) -> Self:
        """Build a Combiner from a state dict of CLIP4Cir, which its checkpoints hold.

        ``torch.load("combiner.pt", weights_only=True)["Combiner"]`` reads it, and runs no code of
        the file. All sizes are taken from the weights. They keep their dtype: half precision must
        be widened by ``.float()`` to be trained.

        Args:
            weights: by their published names, which are ours too.
            dropout: as above; weights cannot tell it.

        Raises:
            TypeError: if weights are no mapping.
            ValueError: naming a weight that is missing, unknown, ill-shaped or not finite.
        """
        published = PublishedWeights("Combiner", weights)
        projection_dim, dim = published.shape("text_projection_layer.weight")
        hidden_dim, _ = published.shape("combiner_layer.weight")
        return published.load_into(lambda: cls(dim, projection_dim, hidden_dim, dropout))


class _ReluDropout(nn.Dropout):
    """dropout(relu(x)) in place: each pass over memory less is 1 % of a training step."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input.relu_()
        # On CPUs nn.Dropout draws its random numbers several times slower. The mask comes first,
        # since relu needs its own result for the backward pass.
        mask = torch.rand(input.shape, device=input.device).ge_(self.p).div_(1 - self.p)
        return input.mul_(mask.to(input.dtype)).relu_()
