"""mteb's retrieval evaluation of a fusecomp model, on a task that is defined here.

    python examples/integrations/with_mteb.py

mteb adds image and text vectors for a composed query; ``Queries`` gives it the model's own. The
recall that it prints is the one of ``fusecomp.evaluate``. Needs mteb 2 and sentence-transformers.
"""

from typing import Any

import mteb
import torch
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from torch import Tensor

import fusecomp as fc


def define_task(data: fc.Dataset) -> AbsTaskRetrieval:
    """Return the first task of a dataset as a task of mteb; images go by id."""
    task = data.tasks()[0]
    if task.exclude is not None:
        raise ValueError(
            "mteb ranks the whole gallery: take a dataset with exclude_reference=False"
        )
    queries = {
        "id": [row.query_id for row in task.queries],
        "image": [row.reference_id for row in task.queries],
        "text": [text for row in task.queries for text in row.texts],
    }
    corpus = {"id": list(task.gallery), "image": list(task.gallery)}

    class Composed(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = TaskMetadata(
            name="ComposedRetrieval",
            description="Find the image that looks like a reference image, changed as a text says.",
            dataset={"path": "local", "revision": "1"},
            type="Any2AnyRetrieval",
            category="it2i",
            modalities=["image", "text"],
            eval_splits=["val"],
            eval_langs=["eng-Latn"],
            main_score="recall_at_10",
        )

    composed = Composed()
    relevant = {row.query_id: {row.target_id: 1} for row in task.queries}
    split = {
        "queries": Dataset.from_dict(queries),
        "corpus": Dataset.from_dict(corpus),
        "relevant_docs": relevant,
        "top_ranked": None,
    }
    composed.dataset = {"default": {"val": split}}
    composed.data_loaded = True
    return composed


class Queries:
    """A fusecomp model as mteb calls one: queries of image + text, targets of an image."""

    def __init__(self, model: fc.ComposedEncoder) -> None:
        self.model = model
        told = {"name": "fusecomp/composed", "revision": "1", "modalities": ["image", "text"]}
        self.mteb_model_meta = ModelMeta.create_empty(told)

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Tensor:
        """Return queries of image + text, or features of targets."""
        parts = []
        for batch in inputs:
            images = list(batch["image"])
            if prompt_type == "query":
                parts.append(self.model.encode_query(images, list(batch["text"])))
            else:
                parts.append(self.model.encode_gallery(images))
        return torch.cat(parts)

    def similarity(self, first: Any, second: Any) -> Tensor:
        """Return the cosines, as both have unit length."""
        return torch.as_tensor(first) @ torch.as_tensor(second).T

    def similarity_pairwise(self, first: Any, second: Any) -> Tensor:
        """Return the cosine of each pair."""
        return (torch.as_tensor(first) * torch.as_tensor(second)).sum(1)


def main() -> None:
    ids, texts = [f"image {n}" for n in range(200)], ["is blue", "is red"]
    rows = [fc.Triplet(str(n), ids[n], (texts[n % 2],), ids[n * 7 % 200]) for n in range(1, 200)]
    data = fc.datasets.Triplets(rows, ks=(1, 10, 100), gallery=ids, exclude_reference=False)
    drawn = torch.Generator().manual_seed(0)
    images, words = torch.randn(200, 16, generator=drawn), torch.randn(2, 16, generator=drawn)
    encoder = fc.CachedEncoder.from_arrays(ids, images, texts, words)
    model = fc.ComposedEncoder(encoder, fc.Combiner(dim=16))
    result = mteb.evaluate(Queries(model), define_task(data), cache=None, show_progress_bar=False)
    [scores] = result[0].scores["val"]
    ours = fc.evaluate(model, data)
    for k in data.ks:
        print(f"recall@{k}: mteb {100 * scores[f'recall_at_{k}']:.3f}, ", end="")
        print(f"fusecomp {ours[f'recall@{k}']:.3f}")


if __name__ == "__main__":
    main()
