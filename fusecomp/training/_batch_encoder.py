import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fusecomp._core.devices import autocast
from fusecomp._core.randomness import seed
from fusecomp.distributed import gather_objects, get_rank
from fusecomp.training._gradient_cache import Features
from fusecomp.training._stage_config import StageConfig
from fusecomp.types import Batch, Encode, Encoder


@dataclass(frozen=True, slots=True)
class BatchEncoder:
    """Encodes this process's share of a batch in parts, each with random numbers of its own."""

    encoder: Encoder
    batch: Batch
    config: StageConfig
    device: torch.device
    step: int
    learns: bool

    @property
    def parts(self) -> int:
        size = self.config.micro_batch_size
        return 1 if size is None else math.ceil(len(self.batch) / size)

    def most_parts(self) -> int:
        """Return the number of parts on the process that has the most."""
        return 1 if self.config.micro_batch_size is None else max(gather_objects(self.parts))

    def __call__(self, part: int) -> Features:
        """Compute the features of a part; parts behind the last one have no rows."""
        seed(self.device, self.config.seed, self.step, get_rank() + 1, part + 1)
        size = self.config.micro_batch_size
        if size is None:
            return self._encode(self.batch)
        if part >= self.parts:
            # A call that the other processes of a sharded encoder wait for; its row is dropped.
            image, text, target = self._encode(self.batch.rows(0, 1))
            return image[:0], text[:0], target[:0]
        return self._encode(self.batch.rows(part * size, (part + 1) * size))

    def _encode(self, rows: Batch) -> Features:
        with autocast(self.device, self.config.precision):
            return (
                self._run(self.encoder.encode_image, rows.reference),
                self._run(self.encoder.encode_text, rows.texts),
                self._run(self.encoder.encode_image, rows.target),
            )

    def _run(self, encode: Encode, inputs: object) -> Tensor:
        if isinstance(inputs, Tensor):
            inputs = inputs.to(self.device)
        if not (self.config.gradient_checkpointing and self.learns):
            return encode(inputs)
        features: Tensor = checkpoint(encode, inputs, use_reentrant=False)
        return features
