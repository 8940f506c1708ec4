"""Settings for ``TwoStageTrainer(encoder, fusion, **presets.NAME)``.

``CVPRW2022`` and ``TOMM2023`` are the published settings of CLIP4Cir: Baldrati et al., CVPR
Workshops 2022 (text encoder tuned) and ACM TOMM 2023, arXiv 2308.11485 (both encoders tuned), with
the values of https://github.com/ABaldrati/CLIP4Cir. Weight decay acts on all parameters, incomplete
batches are dropped, and fp16 autocast needs a GPU: elsewhere ``dataclasses.replace(stage,
precision="bf16")``. The published loss, ``loss=InfoNCE(temperature=0.01)``, goes beside them.

``RECOMMENDED`` is the library's own advice, with its loss: temperature 0.05 in both stages, and a
learning rate of 1e-3 in stage 2. That rate was measured at widths 64 and 128, in batches of 256: at
width 640 begin with less. The page "Recipes" of the documentation tells what the preset gained, and
has the rest, which belongs to a dataset or fusion: a bank of targets, and the Combiner's dropout.
"""

from dataclasses import replace
from typing import Any

from fusecomp.losses import InfoNCE
from fusecomp.training._stage_config import StageConfig

__all__ = ["CVPRW2022", "RECOMMENDED", "TOMM2023"]

_STAGE1 = StageConfig(
    epochs=100,
    batch_size=128,
    lr=2e-6,
    trainable="text",
    optimizer="adamw",
    eps=1e-7,
    weight_decay=0.01,
    no_decay=(),
    precision="fp16",
    drop_last=True,
)
_STAGE2 = StageConfig(
    epochs=300, batch_size=4096, lr=2e-5, optimizer="adam", precision="fp16", drop_last=True
)

CVPRW2022 = {"stage1": _STAGE1, "stage2": _STAGE2}
TOMM2023 = {"stage1": replace(_STAGE1, trainable="both"), "stage2": _STAGE2}
RECOMMENDED: dict[str, Any] = {
    "loss": InfoNCE(temperature=0.05),
    "stage1": StageConfig(epochs=100, batch_size=128, lr=2e-6, trainable="text"),
    "stage2": StageConfig(epochs=300, batch_size=4096, lr=1e-3, optimizer="adam"),
}
