import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fusecomp._core.checks import as_path
from fusecomp.caching import CachedEncoder
from fusecomp.evaluation import Evaluation, evaluate
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder
from fusecomp.training._stage import StageConfig
from fusecomp.training._two_stage import TwoStageTrainer
from fusecomp.types import Dataset, Encoder, Fusion, Loss

__all__ = ["Ablation", "ablation"]


@dataclass(frozen=True, slots=True)
class Ablation:
    """What ``ablation`` gives.

    Args:
        evaluations: by the name of the row, such as ``"tuned, Sum"``.
        model: the last row's, fully trained.
    """

    evaluations: Mapping[str, Evaluation]
    model: ComposedEncoder


def ablation(
    encoder: Encoder,
    fusion: Fusion,
    train: Dataset,
    validation: Dataset,
    *,
    loss: Loss,
    stage1: StageConfig | None,
    stage2: StageConfig,
    workdir: str | Path | None = None,
) -> Ablation:
    """The paper's experiment: {plain, tuned} encoder x {Sum, fusion}, image only, text only.

    Args:
        encoder: tuned in place by stage 1, after the plain rows.
        fusion: trained in place for the tuned encoder; the plain one gets a copy.
        train: the triplets to learn from.
        validation: is evaluated, and picks each training's best weights.
        loss: as in ``TwoStageTrainer``.
        stage1: its settings; None leaves out the tuned rows.
        stage2: its settings.
        workdir: gets the folders ``plain`` and ``tuned``; the same call again resumes.

    Raises:
        TypeError: if an argument is something else, such as a workdir that is no path.
        ValueError: as ``Trainer``; also if the workdir belongs to another run.
        FileNotFoundError: if images are missing.
        ImageError: if one cannot be read.
    """
    name = type(fusion).__name__
    folder = None if workdir is None else as_path("workdir", workdir)
    plain = CachedEncoder.build(encoder, validation)
    models: dict[str, Fusion] = {
        "image only": _image_only,
        "text only": _text_only,
        "plain, Sum": Sum(),
    }
    rows = {row: evaluate(ComposedEncoder(plain, f), validation) for row, f in models.items()}
    plain_fusion = fusion if stage1 is None else copy.deepcopy(fusion)
    trainer = TwoStageTrainer(
        encoder, plain_fusion, loss=loss, stage1=None, stage2=stage2, workdir=_in(folder, "plain")
    )
    run = trainer.fit(train, validation)
    rows[f"plain, {name}"] = evaluate(run.model, validation)
    if stage1 is not None:
        trainer = TwoStageTrainer(
            encoder, fusion, loss=loss, stage1=stage1, stage2=stage2, workdir=_in(folder, "tuned")
        )
        run = trainer.fit(train, validation)
        tuned = CachedEncoder.build(encoder, validation)
        rows["tuned, Sum"] = evaluate(ComposedEncoder(tuned, Sum()), validation)
        rows[f"tuned, {name}"] = evaluate(ComposedEncoder(tuned, fusion), validation)
    return Ablation(rows, run.model)


def _in(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def _image_only(image: Tensor, text: Tensor) -> Tensor:
    return image


def _text_only(image: Tensor, text: Tensor) -> Tensor:
    return text
