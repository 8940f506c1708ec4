import copy
from dataclasses import replace
from pathlib import Path

from fusecomp.fusion import Sum
from fusecomp.model import ComposedEncoder
from fusecomp.protocols import Dataset, Encoder, Fusion, Loss
from fusecomp.training._stage import StageConfig
from fusecomp.training._trainer import Run, Trainer

__all__ = ["TwoStageTrainer"]


class TwoStageTrainer:
    """The paper's training: the encoder under Sum, then the fusion on the frozen encoder.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022.

    Args:
        encoder: tuned in place by stage 1.
        fusion: trained in place by stage 2.
        loss: one for both stages (each gets a copy), or a pair.
        stage1: its settings, with ``train`` naming sides of the encoder; None skips it.
        stage2: its settings.
        workdir: gets the folders ``stage1`` and ``stage2``; the same call again resumes.

    Example:
        >>> trainer = TwoStageTrainer(encoder, fusion, loss=loss, stage1=None, stage2=config)
        ... # doctest: +SKIP
        >>> model = trainer.fit(train, val).model  # doctest: +SKIP
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
    ) -> None:
        self.encoder = encoder
        self.fusion = fusion
        self.losses = loss if isinstance(loss, tuple) else (loss, copy.deepcopy(loss))
        self.stage1 = stage1
        self.stage2 = stage2
        self.workdir = None if workdir is None else Path(workdir)

    def fit(self, train: Dataset, validation: Dataset | None = None) -> Run:
        """Both stages; the run of the second, which carries the first as ``stage1``."""
        first = None
        if self.stage1 is not None:
            model = ComposedEncoder(self.encoder, Sum())
            first = self._trainer(model, 0, self.stage1, train, validation).run()
        model = ComposedEncoder(self.encoder, self.fusion)
        second = self._trainer(model, 1, self.stage2, train, validation).run()
        return replace(second, stage1=first)

    def _trainer(
        self,
        model: ComposedEncoder,
        stage: int,
        config: StageConfig,
        train: Dataset,
        validation: Dataset | None,
    ) -> Trainer:
        workdir = None if self.workdir is None else self.workdir / f"stage{stage + 1}"
        return Trainer(model, train, self.losses[stage], config, validation, workdir)
