import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fusecomp._core.devices import autocast
from fusecomp._core.randomness import seed
from fusecomp.distributed import gather_objects, get_rank
from fusecomp.training._gradient_cache import Features
from fusecomp.training._stage_config import StageConfig
from fusecomp.types import Batch, Encode, Encoder

__all__ = ["BatchEncoder"]


class BatchEncoder:
    """Encodes one batch in parts, each with random numbers of its own.

    Args:
        encoder: for this batch; part of it may be looked up.
        batch: this process's share.
        config: ``micro_batch_size``, ``gradient_checkpointing``, ``precision`` and ``seed`` count.
        device: where the encoder is.
        step: the number of the step, from 0.
        learns: whether the encoder learns.
    """

    def __init__(
        self,
        encoder: Encoder,
        batch: Batch,
        config: StageConfig,
        device: torch.device,
        step: int,
        learns: bool,
    ) -> None:
        self._encoder = encoder
        self._batch = batch
        self._device = device
        self._precision = config.precision
        self._recomputes = config.gradient_checkpointing and learns
        self._size = config.micro_batch_size
        self._stream = config.seed, step, get_rank() + 1
        self.parts = 1 if self._size is None else -(-len(batch) // self._size)

    def most_parts(self) -> int:
        """Return the number of parts on the process that has the most."""
        return 1 if self._size is None else max(gather_objects(self.parts))

    def __call__(self, part: int) -> Features:
        """Compute the features of a part; parts behind the last one have no rows."""
        seed(self._device, *self._stream, part + 1)
        if self._size is None:
            return self._encode(self._batch)
        if part >= self.parts:
            # A call that the other processes of a sharded encoder wait for; its row is dropped.
            image, text, target = self._encode(self._batch.rows(0, 1))
            return image[:0], text[:0], target[:0]
        start = part * self._size
        return self._encode(self._batch.rows(start, start + self._size))

    def _encode(self, rows: Batch) -> Features:
        with autocast(self._device, self._precision):
            return (
                self._run(self._encoder.encode_image, rows.reference),
                self._run(self._encoder.encode_text, rows.texts),
                self._run(self._encoder.encode_image, rows.target),
            )

    def _run(self, encode: Encode, inputs: object) -> Tensor:
        if isinstance(inputs, Tensor):
            inputs = inputs.to(self._device)
        if not self._recomputes:
            return encode(inputs)
        features: Tensor = checkpoint(encode, inputs, use_reentrant=False)
        return features
