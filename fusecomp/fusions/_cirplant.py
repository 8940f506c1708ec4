from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from fusecomp._core.checks import number, whole_number
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import check_alike, check_features
from fusecomp.fusions._features import check_inputs
from fusecomp.fusions._published import PublishedWeights
from fusecomp.types import Tokens

_BERT = "imageBert.bert."
# BERT's.
_EPS, _SPREAD = 1e-12, 0.02


class CIRPLANT(nn.Module):
    r"""A transformer over the tokens of the text and one token of the image.

    With w the token features of the text, L of them in a row, p learned positions, and i the image
    feature::

        sequence = dropout([layer_norm(w_1 + p_1); ...; layer_norm(w_L + p_L); i])
        query    = normalize(transformer(sequence)'s last position)

    The layers are those of BERT (normalisation behind each part, GELU). The image has no position.
    Masked positions are not attended to: what they hold changes nothing, to the bit. How many of
    them there are changes the last digit at most, as the size of a batch does.

    Called without ``text_tokens``, the text feature is the only token: that is attention over two
    tokens, which may serve, but is not the published system. Nor can the published quality be had
    from here: it rests on the pre-trained weights of OSCAR and its word vectors.

    Reference:
        Liu, Rodriguez-Opazo, Teney, Gould, "Image Retrieval on Real-Life Images With Pre-Trained
        Vision-and-Language Models", ICCV 2021, https://arxiv.org/abs/2108.04024

    Args:
        dim: D, the width of image features, of the layers and of queries. The published image
            projection, which targets pass too, belongs to the encoder: ``DualEncoder(..., dim=D)``
            has one without a bias.
        layers: 12 as published; ours is 2.
        heads: of the attention, which must divide dim; 12 as published, ours is 8.
        text_dim: the width of token features, or of text features where there are no tokens; dim
            by default, as published. A linear layer brings another one to dim.
        hidden_dim: the width inside each layer; 4 x dim by default, as published.
        max_tokens: how many positions there are; 512 as published.
        dropout: probability, also of the attention; 0.3 as published.

    Shape:
        ``fusion(image [B, D], text [B, T], text_tokens=Tokens(values [B, L, W], mask [B, L])) ->
        query [B, D]``, one floating dtype; the inputs must not be normalised if published weights
        are to work. The output has unit length; published queries and targets have the length s,
        see ``from_published``.

    Raises:
        TypeError: if an input is no torch tensor, or text_tokens are no Tokens.
        ValueError: if a size is no positive whole number, heads do not divide dim or dropout is
            outside [0, 1); if the inputs are empty or differ in rows, width, dtype or device from
            these or the weights (autocast may change the dtype); or on more than max_tokens tokens.

    Example:
        >>> import torch
        >>> from fusecomp.types import Tokens
        >>> cirplant = CIRPLANT(dim=8, heads=2).eval()
        >>> words = Tokens(torch.randn(2, 3, 8), torch.tensor([[True] * 3, [True, False, False]]))
        >>> cirplant(torch.randn(2, 8), torch.randn(2, 8), text_tokens=words).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        dim: int,
        layers: int = 2,
        heads: int = 8,
        text_dim: int | None = None,
        hidden_dim: int | None = None,
        max_tokens: int = 512,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.dim = dim = whole_number("dim", dim, 1)
        self.layers = whole_number("layers", layers, 1)
        self.heads = whole_number("heads", heads, 1)
        self.text_dim = whole_number("text_dim", dim if text_dim is None else text_dim, 1)
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        self.hidden_dim = whole_number("hidden_dim", hidden_dim, 1)
        self.max_tokens = whole_number("max_tokens", max_tokens, 1)
        self.dropout = number("dropout", dropout, 0, 1)
        if dim % self.heads:
            raise ValueError(f"heads must divide dim={dim}, got {heads}")
        self.projection = nn.Identity() if self.text_dim == dim else nn.Linear(self.text_dim, dim)
        self.positions = nn.Parameter(torch.empty(self.max_tokens, dim))
        nn.init.normal_(self.positions, std=_SPREAD)
        self.text_norm = nn.LayerNorm(dim, eps=_EPS)
        self.drop = nn.Dropout(self.dropout)
        # A TransformerEncoder would begin with copies of one layer.
        self.transformer = nn.ModuleList(self._layer() for _ in range(self.layers))

    def _layer(self) -> nn.TransformerEncoderLayer:
        layer = nn.TransformerEncoderLayer(
            self.dim,
            self.heads,
            self.hidden_dim,
            self.dropout,
            activation="gelu",
            layer_norm_eps=_EPS,
            batch_first=True,
        )
        layer.dropout.p = 0.0  # BERT drops nothing between its two linear layers
        return layer

    def forward(self, image: Tensor, text: Tensor, *, text_tokens: Tokens | None = None) -> Tensor:
        """Return queries [B, D] of unit length.

        Args:
            image: [B, D].
            text: [B, T]; with text_tokens, of any width and not used.
            text_tokens: [B, L, text_dim] and their mask.
        """
        if text_tokens is None:
            check_inputs(self, image, text, self.dim, self.text_dim)
            words, padding = text.unsqueeze(1), None
        else:
            self._check_tokens(image, text, text_tokens)
            unused = ~text_tokens.mask
            # Not even NaN there may reach the products with weights of zero.
            words = text_tokens.values.masked_fill(unused.unsqueeze(-1), 0)
            padding = nn.functional.pad(unused, (0, 1), value=False)
        words = self.text_norm(self.projection(words) + self.positions[: words.shape[1]])
        sequence = self.drop(torch.cat((words, image.unsqueeze(1)), dim=1))
        for layer in self.transformer:
            sequence = layer(sequence, src_key_padding_mask=padding)
        return normalize(sequence[:, -1])

    def _check_tokens(self, image: Tensor, text: Tensor, tokens: Tokens) -> None:
        check_features(text, "text")
        check_inputs(self, image, text, self.dim, text.shape[1])
        if not isinstance(tokens, Tokens):
            raise TypeError(
                f"text_tokens must be fusecomp.types.Tokens, got {type(tokens).__name__}"
            )
        rows, length, width = tokens.values.shape
        if (rows, width) != (len(image), self.text_dim) or length > self.max_tokens:
            raise ValueError(
                f"this CIRPLANT needs text_tokens [{len(image)}, L, {self.text_dim}] with L at "
                f"most {self.max_tokens}, got {list(tokens.values.shape)}"
            )
        check_alike(image, tokens.values, ("image", "text_tokens"))

    @classmethod
    def from_published(
        cls, weights: Mapping[str, Tensor], heads: int = 12, dropout: float = 0.3
    ) -> Self:
        """Build a CIRPLANT from the fusion's entries of a state dict of OSCAR_CIRPLANT.

        Left out are the word vectors and segments, whose sum is what ``text_tokens`` hold; the
        image projection ``img_embedding`` (and its ``LayerNorm``, where there is one), which
        belongs to the encoder, as targets pass it too; BERT's pooler, which does nothing; and
        ``normalization_layer.norm_s`` s, the length of queries and targets, s = 4 at first.

        s belongs to the loss. With d the squared distance, the published one is the mean of
        ``log(1 + exp(d(query, positive) - d(query, negative)))`` over drawn triplets, that is
        InfoNCE with one negative a row and the temperature ``1 / (2 s**2)``. With all of the
        batch, it is ``InfoNCE(LearnableTemperature(start=1 / (2 * s**2)))``. The published
        backward pass gives half of the derivative; ours gives all of it.

        Args:
            weights: by their published names.
            heads: of the attention; 12 as published. Weights cannot tell it.
            dropout: as above.

        Raises:
            TypeError: if weights are no mapping.
            ValueError: naming a weight that is missing, unknown, ill-shaped or not finite.
        """
        encoder = ("img_embedding.", "LayerNorm.", "pooler.")
        words = ("embeddings.word_embeddings.", "embeddings.token_type_embeddings.")
        elsewhere = (*(_BERT + name for name in encoder + words), "normalization_layer.norm_s")
        published = PublishedWeights("CIRPLANT", weights, elsewhere)
        max_tokens, dim = published.shape(f"{_BERT}embeddings.position_embeddings.weight")
        hidden_dim, _ = published.shape(f"{_BERT}encoder.layer.0.intermediate.dense.weight")
        layers = published.count(f"{_BERT}encoder.layer.")
        names: dict[str, str | tuple[str, ...]] = {
            "positions": f"{_BERT}embeddings.position_embeddings.weight",
            "text_norm.": f"{_BERT}embeddings.LayerNorm.",
        }
        for layer in range(layers):
            names |= _names_of_layer(f"transformer.{layer}.", f"{_BERT}encoder.layer.{layer}.")
        return published.load_into(
            lambda: cls(dim, layers, heads, dim, hidden_dim, max_tokens, dropout), names
        )


def _names_of_layer(own: str, published: str) -> dict[str, str | tuple[str, ...]]:
    queries_keys_values = (f"{published}attention.self.{x}." for x in ("query", "key", "value"))
    return {
        f"{own}self_attn.in_proj_": tuple(queries_keys_values),
        f"{own}self_attn.out_proj.": f"{published}attention.output.dense.",
        f"{own}norm1.": f"{published}attention.output.LayerNorm.",
        f"{own}linear1.": f"{published}intermediate.dense.",
        f"{own}linear2.": f"{published}output.dense.",
        f"{own}norm2.": f"{published}output.LayerNorm.",
    }
