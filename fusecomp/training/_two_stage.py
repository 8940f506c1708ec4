import copy
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from torch import nn

from fusecomp._core.checks import as_path, require
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder
from fusecomp.training._early_checks import check_parts, try_parts
from fusecomp.training._learning_parameters import is_free
from fusecomp.training._stage_config import StageConfig
from fusecomp.training._stage_data import check_data
from fusecomp.training._trainer import Run, Trainer
from fusecomp.types import Dataset, Encoder, Fusion, Loss


class TwoStageTrainer:
    """The paper's training: the encoder under a simple fusion, then ``fusion`` on it, frozen.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022.

    Args:
        encoder: tuned in place by stage 1.
        fusion: trained in place by stage 2.
        loss: one, of which each stage gets a copy, or a pair.
        stage1: its settings, with ``trainable`` naming sides of the encoder; None skips it.
        stage2: its settings.
        workdir: gets the folders ``stage1`` and ``stage2``; the same call again resumes.
        callbacks: objects with hooks, as in ``Trainer``, for both stages.
        stage1_fusion: of stage 1; None is the paper's ``Sum()``. Its weights, if it has any, learn
            if ``stage1.trainable`` names ``"fusion"`` too; else a warning says that they do not. It
            may be ``fusion`` itself, which stage 2 then trains further.

    Raises:
        TypeError: if an argument is something else, as when two are swapped.
        ValueError: if ``loss`` is a tuple of another length than 2, ``stage1_fusion`` is given
            without ``stage1``, or ``Trainer`` raises it for either stage.

    Example:
        >>> import torch
        >>> from fusecomp import Combiner, InfoNCE
        >>> from fusecomp.caching import CachedEncoder
        >>> from fusecomp.datasets import Triplets
        >>> from fusecomp.types import Triplet
        >>> ids = ["a", "b", "c"]
        >>> rows = [Triplet(f"{i} to {j}", i, (f"is {j}",), j) for i, j in ("ab", "bc", "ca")]
        >>> data = Triplets(rows, ks=[1])
        >>> encoder = CachedEncoder.from_arrays(ids, torch.eye(3), data.texts(), torch.eye(3))
        >>> second = StageConfig(epochs=2, batch_size=3, lr=1e-3)
        >>> parts = {"loss": InfoNCE(), "stage1": None, "stage2": second}
        >>> run = TwoStageTrainer(encoder, Combiner(3), **parts).fit(data, data)
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
        callbacks: Iterable[object] = (),
        stage1_fusion: Fusion | None = None,
    ) -> None:
        require("encoder", encoder, "encode_image", "an encoder", "encoder, fusion")
        require("fusion", fusion, "__call__", "callable", "encoder, fusion")
        if stage1 is not None:
            require("stage1", stage1, "fixed", "a StageConfig")
        require("stage2", stage2, "fixed", "a StageConfig")
        if stage1_fusion is None:
            stage1_fusion = Sum()
        elif stage1 is None:
            raise ValueError("stage1_fusion needs stage1, which is None: leave out both or none")
        require("stage1_fusion", stage1_fusion, "__call__", "callable")
        if isinstance(loss, tuple) and len(loss) != 2:
            raise ValueError(f"loss must be one loss or a pair, got {len(loss)}")
        pair = loss if isinstance(loss, tuple) else (copy.deepcopy(loss), copy.deepcopy(loss))
        folder, hooks = None if workdir is None else as_path("workdir", workdir), tuple(callbacks)

        def trainer(stage: int, fusion: Fusion, config: StageConfig) -> Trainer:
            return Trainer(
                ComposedEncoder(encoder, fusion),
                loss=pair[stage - 1],
                config=config,
                workdir=None if folder is None else folder / f"stage{stage}",
                callbacks=hooks,
            )

        self.stage2 = trainer(2, fusion, stage2)
        self.stage1 = None if stage1 is None else trainer(1, stage1_fusion, stage1)
        if self.stage1 is not None:
            _warn_of_frozen(stage1_fusion, self.stage1)

    def fit(self, train_dataset: Dataset, val_dataset: Dataset | None = None) -> Run:
        """Train both stages; return the run of the second, which has the first as ``stage1``.

        Args:
            train_dataset: the triplets to learn from.
            val_dataset: is evaluated to pick each stage's best weights; without it the last stay.

        Raises:
            ValueError: if ``Trainer.fit`` raises it; wrong settings of either stage before the
                first begins.
        """
        second = self.stage2
        data = check_data(train_dataset, val_dataset, second.config)
        check_parts(second.model, second.loss, data)
        if self.stage1 is not None:
            try_parts(second.model, second.loss, train_dataset, second.config)
            self.stage1.frozen_features = second.frozen_features
        first = None if self.stage1 is None else self.stage1.fit(train_dataset, val_dataset)
        return replace(second.fit(train_dataset, val_dataset), stage1=first)


def _warn_of_frozen(fusion: Fusion, stage1: Trainer) -> None:
    """Warn of a fusion whose weights the user lets learn, and stage 1 does not."""
    weights = list(fusion.parameters()) if isinstance(fusion, nn.Module) else []
    learning = {id(p) for group in stage1.optimizer.param_groups for p in group["params"]}
    if any(map(is_free, weights)) and learning.isdisjoint(map(id, weights)):
        warnings.warn(
            f"the weights of stage1_fusion={type(fusion).__name__} stay as they are in stage 1, as "
            f"trainable={stage1.config.trainable!r} does not name 'fusion': if they are not "
            "trained yet, the encoder is tuned under random ones. Name 'fusion' too; if no stage "
            "shall train them, requires_grad_(False) ends this warning",
            stacklevel=3,
        )
