"""A fusecomp model inside sentence-transformers: image + text in one input of ``encode``.

    python examples/integrations/with_sentence_transformers.py

CLIP-like models of sentence-transformers take an image or a text, not both in one input. As the
only module of a ``SentenceTransformer``, ``ComposedQueries`` adds that: ``encode``, ``similarity``
and the evaluators work on composed queries. Needs sentence-transformers 5.4 or newer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from torch import Tensor

import fusecomp as fc


class ComposedQueries(InputModule):  # type: ignore[misc]  # no annotations
    """Encode ``{"image": ..., "text": ...}`` as a query and ``{"image": ...}`` as a target.

    Images are whatever ``model.encode_query`` takes, such as paths or the ids of a
    ``CachedEncoder``. A call takes queries or targets, not both.
    """

    def __init__(self, model: fc.ComposedEncoder) -> None:
        super().__init__()
        self.model = model

    @property
    def modalities(self) -> list[Any]:
        """The inputs that ``encode`` accepts; it sorts the names of a pair."""
        return ["image", ("image", "text")]

    def preprocess(self, inputs: Sequence[Any], **_: Any) -> dict[str, Any]:
        """Split the inputs into images and texts; the model itself opens and tokenizes."""
        rows = [row if isinstance(row, dict) else {"image": row} for row in inputs]
        texts = [row["text"] for row in rows if "text" in row]
        return {"images": [row["image"] for row in rows], "texts": texts}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add the queries, or the features of targets, under the name that pooling uses."""
        images, texts = features["images"], features["texts"]
        model = self.model
        made = model.encode_query(images, texts) if texts else model.encode_gallery(images)
        return features | {"sentence_embedding": made}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Save the model's folder; ``ComposedEncoder.load`` reads it."""
        self.model.save(output_path)


def toy_model() -> tuple[fc.ComposedEncoder, list[str], list[str]]:
    """A Combiner on random cached features: 20 images, two texts."""
    ids, texts = [f"image {n}" for n in range(20)], ["is blue", "is red"]
    drawn = torch.Generator().manual_seed(0)
    images, words = torch.randn(20, 64, generator=drawn), torch.randn(2, 64, generator=drawn)
    encoder = fc.CachedEncoder.from_arrays(ids, images, texts, words)
    return fc.ComposedEncoder(encoder, fc.Combiner(dim=64)), ids, texts


def main() -> None:
    model, ids, texts = toy_model()
    st = SentenceTransformer(modules=[ComposedQueries(model)])
    queries: list[Any] = [{"image": name, "text": texts[n % 2]} for n, name in enumerate(ids)]
    targets: list[Any] = [{"image": name} for name in ids]
    scores: Tensor = st.similarity(st.encode(queries), st.encode(targets))
    print("similarity of 20 queries and 20 images:", tuple(scores.shape))
    evaluator = InformationRetrievalEvaluator(
        {str(n): query for n, query in enumerate(queries)},
        dict(zip(ids, targets, strict=True)),
        {str(n): {ids[(n + 5) % 20]} for n in range(20)},
        accuracy_at_k=[1, 5],
    )
    for name, value in evaluator(st).items():
        if "accuracy" in name:
            print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
