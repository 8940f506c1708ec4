from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusecomp._core.checks import as_share, number
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import check_features, check_pair
from fusecomp.fusions._features import check_one_width


class Direction(nn.Module):
    r"""Image and text features, each moved by the direction from one prompt to another.

    With i the image feature, t that of the *composed* prompt, which describes the wanted image,
    and r that of the *reference* prompt, which describes the reference image, all at unit length::

        d     = t - r
        query = normalize((1 - beta) (i + alpha_image d) + beta (r + alpha_text d))

    alpha_image and alpha_text dial how far each side moves: 0 stays at the reference, 1 makes the
    whole change, more exaggerates it, less than 0 turns it round. With alpha_text = 1 the text's
    side is t itself. beta weighs the text's side against the image's.

    The reference prompt is a caption or pseudo-word of the reference image; its features are given
    with each call. Where there is none, ``reference_text`` is one constant for all, such as the
    text feature of ``""`` or ``"a photo"`` (a variant of ours, which is not published): then d is
    what the text says beyond that prompt.

    Reference:
        Tursun, Kalkan, Denman, Fookes, "PDV: Prompt Directional Vectors for Zero-shot Composed
        Image Retrieval", WACV 2026, https://arxiv.org/abs/2502.07215

    Args:
        reference_text: the constant prompt feature, D numbers, such as
            ``encoder.encode_text(["a photo"])[0]``; None if each call gives its own. It does not
            learn, and is kept in float32.
        alpha_image: how far the image's side moves; 1 as published.
        alpha_text: how far the text's side moves; 1 as published.
        beta: the share of the text's side, in [0, 1]. The published default is 1, which with
            alpha_text = 1 is the plain text query; ours is 0.5.

    Shape:
        ``fusion(image, text, reference_text=None) -> query``, [B, D] each, one floating dtype; the
        inputs need not be normalised, the output has unit length.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if alpha_image or alpha_text are not finite or beta is outside [0, 1]; if the
            inputs differ in width, rows or dtype, are empty, or are not [B, D]; if the constant is
            not D finite numbers; or if there is neither a constant nor ``reference_text``.

    Example:
        >>> import torch
        >>> fusion = Direction(reference_text=[1.0, 0.0, 0.0], beta=0.0)
        >>> fusion(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor([[0., 0., 1.]])
        >>> fusion(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]]))
        tensor([[0., 1., 0.]])
    """

    def __init__(
        self,
        reference_text: Tensor | Sequence[float] | None = None,
        alpha_image: float = 1.0,
        alpha_text: float = 1.0,
        beta: float = 0.5,
    ) -> None:
        super().__init__()
        self.alpha_image = number("alpha_image", alpha_image)
        self.alpha_text = number("alpha_text", alpha_text)
        self.beta = as_share("beta", beta)
        # A list is an argument like any other: a saved model's config holds it.
        self.reference_text = None if reference_text is None else _numbers(reference_text)
        self.constant: Tensor | None
        constant = None if self.reference_text is None else torch.tensor(self.reference_text)
        self.register_buffer("constant", constant, persistent=False)

    def forward(self, image: Tensor, text: Tensor, reference_text: Tensor | None = None) -> Tensor:
        """Queries [B, D] of unit length.

        Args:
            image: [B, D].
            text: [B, D], features of the composed prompts.
            reference_text: [B, D], features of the reference prompts, in place of the constant.
        """
        check_one_width(self, image, text)
        reference_text = self._reference(text, reference_text)
        i, t, r = normalize(image), normalize(text), normalize(reference_text)
        d = t - r
        image_side, text_side = i + self.alpha_image * d, r + self.alpha_text * d
        return normalize((1 - self.beta) * image_side + self.beta * text_side)

    def _reference(self, text: Tensor, given: Tensor | None) -> Tensor:
        if given is not None:
            check_features(given, "reference_text")
            check_pair(text, given, ("text", "reference_text"))
            return given
        if self.constant is None:
            raise ValueError(
                "Direction needs the features of a reference prompt: call it with reference_text="
                "[B, D], or make it with Direction(reference_text=[D]), a constant for all"
            )
        if self.constant.shape != text.shape[1:] or self.constant.device != text.device:
            raise ValueError(
                f"reference_text of this Direction is {list(self.constant.shape)} on "
                f"{self.constant.device}, text {list(text.shape)} on {text.device}: they need one "
                "width and one device"
            )
        return self.constant.to(text.dtype)

    def extra_repr(self) -> str:
        """The dials, and whether there is a constant."""
        constant = "None" if self.reference_text is None else f"[{len(self.reference_text)}]"
        dials = f"alpha_image={self.alpha_image}, alpha_text={self.alpha_text}, beta={self.beta}"
        return f"reference_text={constant}, {dials}"


def _numbers(reference_text: Tensor | Sequence[float]) -> list[float]:
    if isinstance(reference_text, Tensor):
        check_features(reference_text.unsqueeze(0), "reference_text", "[D]")
        reference_text = reference_text.tolist()
    values = [number("reference_text", value) for value in reference_text]
    if not values:
        raise ValueError("reference_text must be D numbers, got none")
    return values
