import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fusecomp._core.checks import as_path
from fusecomp._core.progress import say
from fusecomp.evaluation import Evaluation, evaluate
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder
from fusecomp.training._stage_config import StageConfig
from fusecomp.training._two_stage import TwoStageTrainer
from fusecomp.types import SIDES, Dataset, Encoder, Fusion, Loss


@dataclass(frozen=True, slots=True)
class Ablation:
    """Result of ``ablation``.

    Args:
        evaluations: by the name of a row, such as ``"tuned, Sum"``.
        model: the model of the last row, fully trained.
    """

    evaluations: Mapping[str, Evaluation]
    model: ComposedEncoder


def ablation(
    encoder: Encoder,
    fusion: Fusion,
    train_dataset: Dataset,
    val_dataset: Dataset,
    *,
    loss: Loss,
    stage1: StageConfig | None,
    stage2: StageConfig,
    workdir: str | Path | None = None,
    stage1_fusion: Fusion | None = None,
) -> Ablation:
    """Run the paper's experiment: {plain, tuned} encoder x {Sum, fusion}, image only, text only.

    Images and texts are encoded once, those of a side that stage 1 tunes once more behind it.

    Args:
        encoder: tuned in place by stage 1, after the plain rows.
        fusion: trained in place for the tuned encoder; the plain one gets a copy.
        train_dataset: the triplets to learn from.
        val_dataset: is evaluated, and picks each training's best weights.
        loss: each stage of each training gets a copy.
        stage1: settings of stage 1; None leaves out the tuned rows.
        stage2: settings of stage 2.
        workdir: gets the folders ``plain`` and ``tuned``; the same call again resumes.
        stage1_fusion: of stage 1, as in ``TwoStageTrainer``; the row "tuned, Sum" is of ``Sum``.

    Raises:
        Exception: whatever ``TwoStageTrainer`` and ``evaluate`` raise.
    """
    name = type(fusion).__name__
    folder = None if workdir is None else as_path("workdir", workdir)
    paths = [folder and folder / part for part in ("plain", "tuned")]
    stages = partial(TwoStageTrainer, encoder, loss=loss, stage2=stage2)
    if stage1 is None:
        trainer = stages(fusion, stage1=None, workdir=paths[0], stage1_fusion=stage1_fusion)
    else:
        trainer = stages(copy.deepcopy(fusion), stage1=None, workdir=paths[0])
    features = trainer.stage2.frozen_features

    def evaluated(fusions: Mapping[str, Fusion]) -> dict[str, Evaluation]:
        model = ComposedEncoder(encoder, fusion)
        cached = features.look_up(model, [val_dataset], SIDES, stage2)
        models = {row: ComposedEncoder(cached, fusion) for row, fusion in fusions.items()}
        return {row: evaluate(model, val_dataset) for row, model in models.items()}

    one_side = {"image only": lambda image, _: image, "text only": lambda _, text: text}
    rows = evaluated({**one_side, "plain, Sum": Sum()})
    model = _trained(f"plain, {name}", trainer, train_dataset, val_dataset)
    rows |= evaluated({f"plain, {name}": model.fusion})
    if stage1 is not None:
        trainer = stages(fusion, stage1=stage1, workdir=paths[1], stage1_fusion=stage1_fusion)
        trainer.stage2.frozen_features = features
        model = _trained(f"tuned, {name}", trainer, train_dataset, val_dataset)
        rows |= evaluated({"tuned, Sum": Sum(), f"tuned, {name}": fusion})
    return Ablation(rows, model)


def _trained(row: str, trainer: TwoStageTrainer, train: Dataset, val: Dataset) -> ComposedEncoder:
    say(f"ablation: training for the row {row}")
    return trainer.fit(train, val).model
