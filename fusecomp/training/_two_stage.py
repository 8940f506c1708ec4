import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusecomp._core.checks import as_path, require
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder
from fusecomp.training._stage import StageConfig
from fusecomp.training._trainer import Run, Trainer
from fusecomp.types import Dataset, Encoder, Fusion, Loss

__all__ = ["TwoStageTrainer"]


class TwoStageTrainer:
    """The paper's training: the encoder under Sum, then the fusion on the frozen encoder.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022.

    Args:
        encoder: tuned in place by stage 1.
        fusion: trained in place by stage 2.
        loss: one, of which each stage gets a copy, or a pair.
        stage1: its settings, with ``train`` naming sides of the encoder; None skips it.
        stage2: its settings.
        workdir: gets the folders ``stage1`` and ``stage2``; the same call again resumes.
        callbacks: as in ``Trainer``, for both stages.

    Raises:
        TypeError: if an argument is something else, as when two are swapped.
        ValueError: if ``loss`` is a tuple of another length than 2.

    Example:
        >>> import tempfile, torch
        >>> from fusecomp import Combiner, InfoNCE
        >>> from fusecomp.datasets import TripletTable
        >>> from fusecomp.caching import CachedEncoder
        >>> folder, ids = Path(tempfile.mkdtemp()), ["a", "b", "c"]
        >>> for name in ids:
        ...     _ = (folder / f"{name}.png").write_bytes(b"features are there, nothing is opened")
        >>> lines = ["reference,text,target", "a,is b,b", "b,is c,c", "c,is a,a"]
        >>> _ = (folder / "mine.csv").write_text(chr(10).join(lines))
        >>> data = TripletTable(folder / "mine.csv", images=folder, ks=[1])
        >>> encoder = CachedEncoder.from_arrays(ids, torch.eye(3), data.texts(), torch.eye(3))
        >>> second = StageConfig(epochs=2, batch_size=3, lr=1e-3)
        >>> trainer = TwoStageTrainer(
        ...     encoder, Combiner(3), loss=InfoNCE(), stage1=None, stage2=second
        ... )
        >>> run = trainer.fit(data, validation=data)
        >>> list(run.metrics), len(run.history)
        (['epoch', 'loss', 'gradient_norm', 'lr', 'recall@1', 'mean'], 2)
    """

    def __init__(
        self,
        encoder: Encoder,
        fusion: Fusion,
        *,
        loss: Loss | tuple[Loss, Loss],
        stage1: StageConfig | None,
        stage2: StageConfig,
        workdir: str | Path | None = None,
        callbacks: Iterable[Any] = (),
    ) -> None:
        require("encoder", encoder, "encode_image", "an encoder", "encoder, fusion")
        require("fusion", fusion, "__call__", "callable", "encoder, fusion")
        for name, config in (("stage1", stage1), ("stage2", stage2)):
            if not (isinstance(config, StageConfig) or (name == "stage1" and config is None)):
                raise TypeError(f"{name} must be a StageConfig, got {type(config).__name__}")
        self.encoder = encoder
        self.fusion = fusion
        if isinstance(loss, tuple) and len(loss) != 2:
            raise ValueError(f"loss must be one loss or a pair, got {len(loss)}")
        pair = loss if isinstance(loss, tuple) else (copy.deepcopy(loss), copy.deepcopy(loss))
        self.losses = pair
        self.stage1 = stage1
        self.stage2 = stage2
        self.workdir = None if workdir is None else as_path("workdir", workdir)
        self.callbacks = tuple(callbacks)

    def fit(self, train: Dataset, validation: Dataset | None = None) -> Run:
        """Both stages; the run of the second, which carries the first as ``stage1``.

        Raises:
            ValueError: as ``Trainer``, for either stage before the first begins.
        """
        model = ComposedEncoder(self.encoder, self.fusion)
        second = self._trainer(model, 1, self.stage2, train, validation)
        first = None
        if self.stage1 is not None:
            model = ComposedEncoder(self.encoder, Sum())
            first = self._trainer(model, 0, self.stage1, train, validation).run()
        return replace(second.run(), stage1=first)

    def _trainer(
        self,
        model: ComposedEncoder,
        stage: int,
        config: StageConfig,
        train: Dataset,
        validation: Dataset | None,
    ) -> Trainer:
        workdir = None if self.workdir is None else self.workdir / f"stage{stage + 1}"
        loss, callbacks = self.losses[stage], self.callbacks
        return Trainer(model, train, loss, config, validation, workdir, callbacks)
