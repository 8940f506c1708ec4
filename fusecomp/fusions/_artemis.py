from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from fusecomp._core.checks import require_choice, strings, whole_number
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import check_alike, check_features, widen
from fusecomp.fusions._features import check_inputs
from fusecomp.fusions._published import PublishedWeights

_TERMS = ("EM", "IS")


class ARTEMIS(nn.Module):
    r"""Two similarities under an attention that the text gives, one of them with the reference.

    With r the reference's features, m the text's and x a candidate's, all at unit length, two
    attentions over the D features, and * the product feature by feature::

        a, b   = softmax(W_2 relu(W_1 m)), each with its own W_1 and W_2
        t      = normalize(W_t m)
        EM     = <t, normalize(a * x)>                       explicit matching: the text's wish
        IS     = <normalize(b * r), normalize(b * x)>        implicit similarity: the reference
        score  = EM + IS                                     in [-2, 2]

    The candidates take part in the attention, so no query of D numbers can be compared by the
    cosine. The query is four rows side by side instead, and ``similarity`` compares it with any
    candidates::

        query  = [u; v; a^2; b^2],  u = t * a,  v = b^2 * r / sqrt(<b^2, r^2>)
        score  = <u, x> / sqrt(<a^2, x^2>) + <v, x> / sqrt(<b^2, x^2>)

    These are the same scores, by four matrix products of inner width D: nothing of the size Q x N
    x D is held. All weights act on the query's side. No vector index can find the best candidates
    by such scores, so search compares with the whole gallery.

    Reference:
        Delmas, Rezende, Csurka, Larlus, "ARTEMIS: Attention-based Retrieval with Text-Explicit
        Matching and Implicit Similarity", ICLR 2022, https://arxiv.org/abs/2203.08101

    Args:
        dim: D, the width of image features.
        terms: "EM", "IS" or both. With one alone, the query is its half, [u; a^2] or [v; b^2];
            "EM" alone does not look at the reference.
        text_dim: T, the width of text features; dim by default, as published.

    Shape:
        ``fusion(image [B, D], text [B, T]) -> query [B, 4 D]`` ([B, 2 D] with one term), one
        floating dtype; the inputs need not be normalised, as they are here (the published encoders
        do it). The queries have no unit length, and must be used as they are.

    Raises:
        TypeError: if an input is no torch tensor.
        ValueError: if a width is no positive whole number or terms are none of these; or if the
            inputs are empty, or not [B, dim] and [B, text_dim] in the dtype and on the device of
            the weights (autocast may change the dtype).

    Example:
        >>> import torch
        >>> artemis = ARTEMIS(dim=8).eval()
        >>> query = artemis(torch.randn(2, 8), torch.randn(2, 8))
        >>> query.shape, artemis.similarity(query, torch.randn(5, 8)).shape
        (torch.Size([2, 32]), torch.Size([2, 5]))
    """

    def __init__(
        self, dim: int, terms: Sequence[str] = _TERMS, text_dim: int | None = None
    ) -> None:
        super().__init__()
        self.dim = dim = whole_number("dim", dim, 1)
        # A list, as a saved model's config holds it.
        self.terms = _checked_terms(terms)
        self.text_dim = whole_number("text_dim", dim if text_dim is None else text_dim, 1)
        if "EM" in self.terms:
            self.transform = nn.Linear(self.text_dim, dim)
        self.attentions = nn.ModuleDict(
            {
                term: nn.Sequential(nn.Linear(self.text_dim, dim), nn.ReLU(), nn.Linear(dim, dim))
                for term in self.terms
            }
        )

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Return queries [B, 4 D], or [B, 2 D] with one term, for ``similarity``."""
        check_inputs(self, image, text, self.dim, self.text_dim)
        r, m = normalize(widen(image)), normalize(text)
        directions, squares = [], []
        for term, attention in self.attentions.items():
            z = widen(attention(m))
            # Softmax up to a factor, which leaves no trace in the score: squares keep their digits.
            a = (z - z.amax(dim=-1, keepdim=True)).exp()
            squares.append(a.square())
            if term == "EM":
                directions.append(a * normalize(widen(self.transform(m))))
            else:
                length = (squares[-1] * r.square()).sum(dim=-1, keepdim=True)
                directions.append(squares[-1] * r / _root(length))
        return torch.cat((*directions, *squares), dim=-1).to(image.dtype)

    def similarity(self, query: Tensor, target: Tensor) -> Tensor:
        """Return the score of every query with every candidate; it uses no weights.

        A candidate of zeros scores 0. So does one of whose length an attention leaves less than
        3e-16 in float32: its digits are lost.

        Args:
            query: [Q, 4 D] as ``forward`` returns them.
            target: image features [N, D], of any length.

        Shape:
            [Q, N], in float32 at least.

        Raises:
            TypeError: if an argument is no torch tensor.
            ValueError: if they are empty, of other shapes, dtypes or devices.
        """
        check_features(query, "query", "[Q, E]")
        check_features(target, "target", "[N, D]")
        width = 2 * len(self.terms) * self.dim
        if (query.shape[1], target.shape[1]) != (width, self.dim):
            raise ValueError(
                f"this ARTEMIS compares query [Q, {width}] with target [N, {self.dim}], got query "
                f"{list(query.shape)} and target {list(target.shape)}"
            )
        query, target = widen(query), widen(target)
        check_alike(query, target, ("query", "target"))
        with torch.autocast(query.device.type, enabled=False):
            x = normalize(target)
            directions, squares = (
                half.reshape(-1, self.dim) for half in query.unflatten(1, (2, -1)).unbind(dim=1)
            )
            terms: Tensor = directions @ x.T / _root(squares @ x.square().T)
            return terms.view(len(query), -1, len(target)).sum(dim=1)

    def extra_repr(self) -> str:
        """The terms."""
        return f"terms={self.terms}"

    @classmethod
    def from_published(cls, weights: Mapping[str, Tensor], terms: Sequence[str] = _TERMS) -> Self:
        """Build an ARTEMIS from the fusion's entries of a state dict of naver/artemis.

        ``temperature``, the logarithm of what multiplies the scores, belongs to the loss and is
        left out: it is ``InfoNCE(LearnableTemperature(start=exp(-temperature)))``, with the
        published start 0.07, which is the default. The published one has no ``lowest``, and decays
        as any other weight. Weights of a term that is not asked for are left out too.

        Args:
            weights: by their published names; the encoders' are taken out before.
            terms: as above; the published weights are the same for all.

        Raises:
            TypeError: if weights are no mapping.
            ValueError: naming a weight that is missing, unknown, ill-shaped or not finite.
        """
        terms = _checked_terms(terms)
        unused = tuple(f"Attention_{term}." for term in _TERMS if term not in terms)
        if "EM" not in terms:
            unused += ("Transform_m.",)
        published = PublishedWeights("ARTEMIS", weights, elsewhere=("temperature", *unused))
        dim, text_dim = published.shape(f"Attention_{terms[0]}.attention.0.weight")
        attentions = {f"attentions.{term}.": f"Attention_{term}.attention." for term in terms}
        return published.load_into(
            lambda: cls(dim, terms, text_dim), {"transform.": "Transform_m.0.", **attentions}
        )


def _checked_terms(terms: Sequence[str]) -> list[str]:
    """Return the terms in their one order; ValueError unless they are one or both."""
    given = {require_choice("term", term, _TERMS) for term in strings("terms", terms)}
    if not given:
        raise ValueError("terms must name EM, IS or both, got none")
    return [term for term in _TERMS if term in given]


def _root(squares: Tensor) -> Tensor:
    """Return the roots of sums of squares; infinity for sums that have lost terms to underflow.

    To divide by infinity gives 0, with the gradient 0. The gradient of a quotient stays finite
    where that of ``rsqrt``, which is its third power, does not.
    """
    info = torch.finfo(squares.dtype)
    return torch.where(squares > info.tiny / info.eps, squares, torch.inf).sqrt()
