from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from fusecomp._core.abilities import (
    encode_named,
    lookups_of,
    protocol_of,
    reference_prompts,
    reference_texts_of,
    skipped_images,
    token_sides,
)
from fusecomp._core.checks import require_both, require_choice, require_kind, whole_number
from fusecomp._core.devices import device_of, inference, require_one_device
from fusecomp._core.fusion_inputs import require_prompts
from fusecomp._core.randomness import repeatable
from fusecomp._core.tensors import non_finite_rows
from fusecomp.caching import CachedEncoder
from fusecomp.datasets import drop_images
from fusecomp.evaluation._tasks import TaskIndices, task_positions, tasks_of
from fusecomp.images import ON_ERROR
from fusecomp.model import ComposedEncoder
from fusecomp.types import SIDES, Dataset, Encoder, Task, Tokens, Triplet

# Queries fused at once: bounds the hidden activations of a large fusion.
_FUSE_ROWS = 1024


class TaskFeatures:
    """Features of a dataset's tasks as a model sees them; each image and text is encoded once.

    Args:
        model: the encoder and fusion; used in evaluation mode.
        dataset: knows the images and texts.
        tasks: the tasks to encode; ``dataset.tasks()`` by default.
        num_workers: as in ``evaluate``.
        on_error: as in ``evaluate``.

    Attributes:
        tasks: the tasks, without the images that were left out.
        protocol: the options of the dataset that make scores comparable or not.
        similarity: the fusion's own, or None: then the cosine compares.

    Raises what ``rank`` raises.
    """

    def __init__(
        self,
        model: ComposedEncoder,
        dataset: Dataset,
        tasks: Sequence[Task] | None = None,
        *,
        num_workers: int | None = None,
        on_error: str = "raise",
    ) -> None:
        require_both(model, dataset)
        on_error = require_choice("on_error", on_error, ON_ERROR)
        if num_workers is not None:
            num_workers = whole_number("num_workers", num_workers, 0)
        tasks = tasks_of(dataset) if tasks is None else tasks
        require_one_device(model.encoder, model.fusion)
        require_prompts(model.fusion, dataset)
        encoder: Encoder = model.encoder
        self._model = model
        self.similarity = model.similarity
        self._device = device_of(model)
        if not {*SIDES} <= lookups_of(encoder).keys():
            cached = CachedEncoder.build(
                encoder,
                dataset,
                num_workers=num_workers,
                on_error=on_error,
                tokens=token_sides(encoder, model.fusion_keywords),
            )
            # An encoder that is no module has no device; its features go to the fusion's.
            encoder = cached.to(self._device)
        self._encoder = encoder
        self._prompts = reference_texts_of(dataset)
        skipped = skipped_images(encoder)
        self.protocol: Mapping[str, str] = protocol_of(drop_images(dataset, skipped))
        self.tasks = [task.drop_images(skipped) for task in tasks] if skipped else tasks

    def gallery(self, task: Task) -> Tensor:
        """Return the features [N, D] of the task's gallery, not normalised."""
        _require_task(task)
        with inference(self._model), repeatable(self._device, task.gallery[0]):
            features, _ = self._encode("image", task.gallery)
            return features

    def queries(self, task: Task) -> Tensor:
        """Return the fused queries [Q, D], of unit length; [Q, E] for a similarity as they are.

        Raises:
            ValueError: if one is not finite, which the message names, or their widths differ.
        """
        _require_task(task)
        blocks = (task.queries[i : i + _FUSE_ROWS] for i in range(0, len(task.queries), _FUSE_ROWS))
        with inference(self._model), repeatable(self._device, task.queries[0].query_id):
            parts = [self._fuse(block) for block in blocks]
        if len(widths := {part.shape[1] for part in parts}) > 1:
            raise ValueError(
                f"task {task.name!r}: the fusion returned queries of {sorted(widths)} numbers; "
                "those of all batches must have one width"
            )
        fused = torch.cat(parts)
        for row in non_finite_rows(fused)[:1]:
            raise ValueError(
                f"task {task.name!r}: the fused feature of query {task.queries[row].query_id!r} "
                "holds NaN or infinity; check the fusion's weights and inputs"
            )
        return fused

    def indices(self, task: Task) -> TaskIndices:
        """Return where targets, excluded images, subsets, right answers are in the gallery."""
        _require_task(task)
        return task_positions(task)

    def _fuse(self, queries: Sequence[Triplet]) -> Tensor:
        references = [query.reference_id for query in queries]
        texts = [text for query in queries for text in query.texts]
        named = self._model.fusion_keywords
        image, image_tokens = self._encode("image", references, named)
        text, text_tokens = self._encode("text", texts, named)
        prompts = None
        if self._prompts and "reference_text" in named:
            prompts, _ = self._encode("text", reference_prompts(self._prompts, references))
        return self._model.compose(
            image,
            text,
            torch.tensor([len(query.texts) for query in queries]),
            image_tokens=image_tokens,
            text_tokens=text_tokens,
            reference_text=prompts,
        )

    def _encode(
        self, side: str, names: Sequence[str], keywords: Collection[str] = ()
    ) -> tuple[Tensor, Tokens | None]:
        rows = lookups_of(self._encoder)[side](names).to(self._device)
        return encode_named(self._encoder, side, keywords, rows)


def _require_task(task: object) -> None:
    require_kind("task", task, Task, "one of the dataset's tasks")
