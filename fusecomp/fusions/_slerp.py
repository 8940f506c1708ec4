import torch
from torch import Tensor, nn

from fusecomp._core.checks import as_share
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import widen
from fusecomp.fusions._features import check_one_width

# Below this angle sin(x) is computed by its series: the quotient loses its gradient to rounding.
_SMALL_ANGLE = 0.01
# Below this length of i + t, no plane is left to turn in.
_OPPOSITE = 1e-3


class Slerp(nn.Module):
    r"""The point on the great circle between image and text features.

    With i and t the features at unit length, theta the angle between them, and w the weight::

        theta = 2 atan2(|i - t|, |i + t|)
        query = normalize(sin((1 - w) theta) i + sin(w theta) t)

    Equal features give themselves, with the exact gradient. Between opposite features there are
    many great circles and none is right: where ``|i + t| < 0.001``, the answer is
    ``normalize((1 - w) i + w t)``, that is the side with the larger share, and zero at w = 1/2.
    Gradients are finite everywhere. The published code interpolates linearly where
    ``|cos theta| > 0.9995``: the same within 1e-6 near equal features, another path near opposite
    ones. It gives a NaN gradient at equal features, and a NaN query at opposite ones.

    Reference:
        Jang, Huynh, Shah, Chen, Lim, "Spherical Linear Interpolation and Text-Anchoring for
        Zero-shot Composed Image Retrieval", ECCV 2024, https://arxiv.org/abs/2405.00571

    Args:
        weight: w, the share of the text, in [0, 1].

    Shape:
        ``fusion(image, text) -> query``, [B, D] each, one floating dtype; the inputs need not be
        normalised, as they are here (the published code leaves that to the caller); the output has
        unit length.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if weight is outside [0, 1], or if the two inputs differ in width, rows or
            dtype, are empty, or are not [B, D].

    Example:
        >>> import torch
        >>> Slerp(weight=1 / 3)(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([[0.8660, 0.5000]])
    """

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = as_share("weight", weight)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Queries [B, D] of unit length."""
        check_one_width(self, image, text)
        i, t = normalize(widen(image)), normalize(widen(text))
        apart, along = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (i - t, i + t))
        opposite = along < _OPPOSITE
        # Where theta is not used, its gradient must be finite too: at (0, 0) it has none.
        theta = 2 * torch.atan2(apart, along.masked_fill(opposite, 1.0))
        of_image, of_text = (
            torch.where(opposite, share, _sine_over_angle(share, theta))
            for share in (1 - self.weight, self.weight)
        )
        return normalize(of_image * i + of_text * t).to(image.dtype)

    def extra_repr(self) -> str:
        """The weight."""
        return f"weight={self.weight}"


def _sine_over_angle(share: float, theta: Tensor) -> Tensor:
    """Return sin(share theta) / theta; the common factor leaves no trace at unit length."""
    small = theta < _SMALL_ANGLE
    # Both branches are computed: neither may divide by zero, or the gradient is NaN.
    angle = torch.where(small, torch.ones_like(theta), theta)
    square = (share * theta) ** 2
    series = share * (1 - square / 6 * (1 - square / 20))
    return torch.where(small, series, torch.sin(share * angle) / angle)
