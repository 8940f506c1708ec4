import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusecomp._core.abilities import encode_named
from fusecomp._core.devices import autocast, device_of
from fusecomp._core.keywords import taken_keywords
from fusecomp._core.randomness import forked, seed
from fusecomp._core.tensors import widen
from fusecomp.distributed import (
    average_gradients,
    broadcast,
    gather,
    gather_objects,
    get_rank,
    is_sharded,
    whole,
)
from fusecomp.losses import CombinedLoss
from fusecomp.model import ComposedEncoder
from fusecomp.training._gradient_cache import Features, GradientCache
from fusecomp.training._learning_parameters import Stage, require_precision
from fusecomp.training._optimizer import make_optimizer, rate_factor
from fusecomp.training._progress import NonFiniteError, Outcome
from fusecomp.types import LOSS_KEYWORDS, SIDES, Batch, Encoder, Fingerprinted, Loss, Tokens

_T = TypeVar("_T")


class Step:
    """One update of the learning parameters: encode, fuse, gather, compute the loss, go back, step.

    ``buffers`` are those of the model that the forward pass changes, such as BatchNorm's.
    """

    def __init__(self, stage: Stage, buffers: Sequence[Tensor]) -> None:
        model, loss, config = stage.model, stage.loss, stage.config
        self._learning = stage.learning
        self._config = config
        self._device = device_of(model)
        self._buffers = buffers
        self._model = model
        self._loss = loss
        self._loss_keywords = taken_keywords(loss, LOSS_KEYWORDS)
        _require_similarity(model, self._loss_keywords, loss)
        self.loss_module = stage.loss_module
        # A queue changes; what has a fingerprint, such as a bank, never does, and may be large.
        self._remembering = [
            module
            for module in self.loss_module.modules()
            if module._buffers and not isinstance(module, Fingerprinted)
        ]
        self._copies: list[Tensor] = []
        if config.compile:
            # Another view of the same weights; only the steps are compiled, not evaluation.
            self._model = ComposedEncoder(model.encoder, torch.compile(model.fusion))
            self._loss = torch.compile(loss)
        of_loss = self.loss_module.named_parameters(prefix="loss")
        self.parameters = {**stage.learning, **dict(of_loss)}
        require_precision(
            {n: p for n, p in self.parameters.items() if n in stage.learning or p.requires_grad}
        )
        sharded = [p for p in self.parameters.values() if is_sharded(p)]
        others = [p for p in self.parameters.values() if not is_sharded(p)]
        # torch's functions of many tensors take one kind at a time.
        self._kinds = [kind for kind in (sharded, others) if kind]
        self._is_sharded = any(is_sharded(p) for p in model.parameters())
        self._encoder_learns = any(name.startswith("encoder.") for name in stage.learning)
        self.optimizer = make_optimizer(self.parameters, config)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=config.precision == "fp16")

    def rates(self, number: int, steps: int) -> list[float]:
        """Return the learning rate of each group in a step (from 0) of ``steps``."""
        factor = rate_factor(self._config, number, steps)
        return [rate * factor for rate in self._rates]

    def __call__(self, encoder: Encoder, batch: Batch, number: int, steps: int) -> Outcome:
        """Update once, in step ``number`` (from 0) of ``steps``; after an error nothing is."""
        if not isinstance(batch, Batch):
            raise TypeError(
                f"batch must be a Batch, as training.batches gives them, got {type(batch).__name__}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        try:
            undo = _forgetting(self._buffers, self._remembering, self._copies)
            with undo, forked(self._device):
                loss, value, norm = self._backward(encoder, batch, number)
        except NonFiniteError:
            self.optimizer.zero_grad(set_to_none=True)
            if self._config.on_nonfinite == "raise":
                raise
            return Outcome(torch.tensor(torch.nan, device=self._device))
        if self._config.max_grad_norm is not None:
            length = loss.new_tensor(norm)
            for kind in self._kinds:
                torch.nn.utils.clip_grads_with_norm_(kind, self._config.max_grad_norm, length)
        rates = self.rates(number, steps)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        # With fp16 the scaler leaves out a step whose gradients overflow, and lowers its scale.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # Rank 0's BatchNorm buffers, as in DDP.
        broadcast(self._buffers)
        return Outcome(loss, value, norm)

    def _backward(self, encoder: Encoder, batch: Batch, number: int) -> tuple[Tensor, float, float]:
        """Return the loss, its value, and the norm of the gradient that the parameters now have."""
        encode = partial(self._features, encoder, batch, number)
        size = self._config.micro_batch_size
        parts = 1 if size is None else math.ceil(len(batch) / size)
        most_parts = 1 if size is None else max(gather_objects(parts))
        cache = None
        # All processes take the same way: with the cache, what is frozen has a gradient too, and a
        # gather that only some go back through would leave the others behind.
        if most_parts > 1:
            # Each call of a sharded encoder needs all processes.
            parts = most_parts if self._is_sharded else parts
            cache = GradientCache(encode, parts, self._encoder_learns)
        features = encode(0) if cache is None else cache.features
        seed(self._device, self._config.seed, number, get_rank() + 1)
        with autocast(self._device, self._config.precision):
            query = self._compose(features, batch.text_counts)
        query, target = gather(query), gather(widen(features["target"]).to(query.dtype))
        loss = self._global_loss(query, target, features["image"], batch, number)
        self.scaler.scale(loss).backward()
        if cache is not None:
            cache.backward()
        average_gradients(list(self.parameters.values()))
        return loss.detach(), *self._checked(loss.detach(), query, target, batch)

    def _features(self, encoder: Encoder, batch: Batch, number: int, part: int) -> Features:
        """Encode one part of this process's rows, with random numbers of its own."""
        seed(self._device, self._config.seed, number, get_rank() + 1, part + 1)
        size = self._config.micro_batch_size
        start = part * (size or 0)
        behind = start >= len(batch)
        if behind:
            # A call that the other processes of a sharded encoder wait for; its row is dropped.
            batch = batch.rows(0, 1)
        elif size is not None:
            batch = batch.rows(start, start + size)
        with autocast(self._device, self._config.precision):
            features = self._encode(encoder, batch)
        return {name: rows[:0] for name, rows in features.items()} if behind else features

    def _encode(self, encoder: Encoder, batch: Batch) -> Features:
        """Encode references, texts and targets, and what else the fusion names."""
        keywords = self._model.fusion_keywords
        features: Features = {}
        for side, inputs in zip(SIDES, (batch.reference, batch.texts), strict=True):
            encode = partial(encode_named, encoder, side, keywords)
            features[side], tokens = self._run(encode, inputs)
            if tokens is not None:
                features |= {f"{side}_tokens": tokens.values, f"{side}_mask": tokens.mask}
        features["target"] = self._run(encoder.encode_image, batch.target)
        if batch.reference_texts is not None and "reference_text" in keywords:
            features["reference_text"] = self._run(encoder.encode_text, batch.reference_texts)
        return features

    def _run(self, encode: Callable[[Any], _T], inputs: object) -> _T:
        if isinstance(inputs, Tensor):
            inputs = inputs.to(self._device)
        if not (self._config.gradient_checkpointing and self._encoder_learns):
            return encode(inputs)
        encoded: _T = checkpoint(encode, inputs, use_reentrant=False)
        return encoded

    def _compose(self, features: Features, text_counts: Tensor) -> Tensor:
        tokens = {
            f"{side}_tokens": Tokens(features[f"{side}_tokens"], features[f"{side}_mask"])
            for side in SIDES
            if f"{side}_tokens" in features
        }
        prompts = features.get("reference_text")
        image, text = features["image"], features["text"]
        return self._model.compose(image, text, text_counts, **tokens, reference_text=prompts)

    def _global_loss(
        self, query: Tensor, target: Tensor, image: Tensor, batch: Batch, number: int
    ) -> Tensor:
        if self._remembering:
            # The loss may be finite although its queue has taken in what is broken.
            self._require_finite(query, target, batch, "")
        rows = {
            "target_ids": batch.target_ids,
            "reference_ids": batch.reference_ids,
            "reference": widen(image).to(query.dtype),
        }
        named: dict[str, object] = {
            name: gather(rows[name].to(self._device)) if name in rows else self._model.similarity
            for name in self._loss_keywords
        }
        # The same numbers on every process: all compute the same loss.
        seed(self._device, self._config.seed, number)
        loss = self._loss(query, target, **named)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            got = list(loss.shape) if isinstance(loss, Tensor) else repr(loss)
            raise ValueError(f"the loss must return a scalar, got {got}")
        if not loss.requires_grad:
            raise ValueError(
                "the loss has no gradient: it must come from query and target by operations of "
                "torch, without detach() or item()"
            )
        return loss

    def _checked(
        self, loss: Tensor, query: Tensor, target: Tensor, batch: Batch
    ) -> tuple[float, float]:
        """Return the value of the loss and the norm of the gradient, both finite."""
        self.scaler.unscale_(self.optimizer)
        kinds = [[p.grad for p in kind if p.grad is not None] for kind in self._kinds]
        norms = [whole(torch.nn.utils.get_total_norm(kind)).to(loss) for kind in kinds]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        # Both in one message from the device, which waits for nothing else.
        value, length = map(float, torch.stack([loss, norm]).tolist())
        if not math.isfinite(value):
            self.scaler.update()
            self._require_finite(query, target, batch, f"the loss is {value}: ")
            raise NonFiniteError(
                f"the loss is {value}: all features are finite, the loss itself gives NaN or "
                "infinity; nothing was updated. Look at the loss, or lower the learning rate"
            )
        if not math.isfinite(length) and not self.scaler.is_enabled():
            gradients = {n: p.grad for n, p in self._learning.items() if p.grad is not None}
            bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
            raise NonFiniteError(
                f"the loss is finite, but the gradients of {bad[:5] or 'the loss itself'} hold NaN "
                "or infinity; nothing was updated. Look for a square root or a division at zero"
            )
        return value, length

    def _require_finite(self, query: Tensor, target: Tensor, batch: Batch, prefix: str) -> None:
        bad = ~(query.isfinite().all(1) & target.isfinite().all(1))
        if not bad.any():
            return
        names = [name for ids in gather_objects(list(batch.query_ids)) for name in ids]
        rows = [names[row] for row in bad.nonzero().flatten().tolist()]
        raise NonFiniteError(
            f"{prefix}queries {rows[:5]} have features that hold NaN or infinity; nothing was "
            "updated. Look at these rows, or lower the learning rate"
        )


@contextmanager
def _forgetting(
    buffers: Sequence[Tensor], modules: Sequence[nn.Module], copies: list[Tensor]
) -> Iterator[None]:
    """Give buffers, and those of modules, back as they were after an error inside.

    ``copies`` are those of the step before, whose memory is used again: new memory costs several
    times the copying, and a queue may be large.
    """
    held = [(m, name, b) for m in modules for name, b in m._buffers.items()]  # some are None
    changing = [*buffers, *(buffer for _, _, buffer in held if buffer is not None)]
    if [*map(_kind, copies)] != [*map(_kind, changing)]:
        copies[:] = map(torch.empty_like, changing)
    for copy, buffer in zip(copies, changing, strict=True):
        copy.copy_(buffer)
    try:
        yield
    except BaseException:
        for buffer, copy in zip(changing, copies, strict=True):
            buffer.copy_(copy)
        for module, name, value in held:
            setattr(module, name, value)  # the loss may have put another in its place
        raise


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device


def _require_similarity(model: ComposedEncoder, keywords: tuple[str, ...], loss: Loss) -> None:
    if model.similarity is not None and "similarity" not in keywords:
        raise ValueError(
            f"{type(model.fusion).__name__} compares by a similarity of its own, but the loss "
            f"{_lacking(loss)} does not name the keyword similarity: use one that does, such "
            "as InfoNCE"
        )


def _lacking(loss: Loss) -> str:
    """Name the loss, or the part of a sum, that names no similarity."""
    if not isinstance(loss, CombinedLoss):
        return type(loss).__name__
    lacking = (name for name, named in loss.keywords.items() if "similarity" not in named)
    name = next(lacking)
    return f"{name!r} of CombinedLoss ({_lacking(loss.losses[name])})"
