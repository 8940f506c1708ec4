import math

import torch
from torch import Tensor, nn

from fusecomp._core.checks import as_share, flag
from fusecomp._core.similarity import normalize as unit
from fusecomp.fusions._features import check_dtype, check_one_width


class WeightedSum(nn.Module):
    r"""The weighted sum of image and text features, at unit length or as they are.

    With i and t the image and text features, at unit length if ``normalize``, and w the weight::

        query = unit((1 - w) i + w t)

    Where the norms of the two sides differ, raw and normalised sums differ: with ``normalize`` and
    w = 1/2 this is the average that Pic2Word compares itself with; without it, w = 1/2 is ``Sum``
    and the score fusion of UniIR.

    Reference:
        Wu et al., "Training-free Zero-shot Composed Image Retrieval via Weighted Modality Fusion
        and Similarity", 2024, https://arxiv.org/abs/2409.04918 (WeiMoCIR);
        Saito et al., "Pic2Word: Mapping Pictures to Words for Zero-shot Composed Image
        Retrieval", CVPR 2023, https://arxiv.org/abs/2302.03084

    Args:
        weight: w, the share of the text, in [0, 1].
        normalize: whether both sides get unit length first.
        learned: whether w learns, starting from ``weight``. What learns is
            ``log_odds = log(w / (1 - w))``, so that w stays between 0 and 1.

    Shape:
        ``fusion(image, text) -> query``, [B, D] each, one floating dtype; the inputs need not be
        normalised, the output has unit length.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if weight is outside [0, 1], or is 0 or 1 and shall learn; if an option is
            neither True nor False; or if the two inputs differ in width, rows or dtype, are empty,
            or are not [B, D].

    Example:
        >>> import torch
        >>> fusion = WeightedSum(weight=0.5)
        >>> fusion(torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.1]]))
        tensor([[0.7071, 0.7071]])
    """

    def __init__(self, weight: float = 0.5, normalize: bool = True, learned: bool = False) -> None:
        super().__init__()
        self.weight = as_share("weight", weight)
        self.normalize = flag("normalize", normalize)
        self.learned = flag("learned", learned)
        if self.learned:
            if self.weight in (0, 1):
                raise ValueError(
                    f"a weight that learns must start between 0 and 1, got {self.weight}"
                )
            start = math.log(self.weight / (1 - self.weight))
            self.log_odds = nn.Parameter(torch.tensor(start))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Queries [B, D] of unit length."""
        check_one_width(self, image, text)
        check_dtype(self, image)
        if self.normalize:
            image, text = unit(image), unit(text)
        weight = self.log_odds.sigmoid() if self.learned else self.weight
        return unit((1 - weight) * image + weight * text)

    def extra_repr(self) -> str:
        """The settings; a weight that learns by its start."""
        return f"weight={self.weight}, normalize={self.normalize}, learned={self.learned}"
