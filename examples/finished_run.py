"""The dataset and the models that a run of fashioniq_repro.py on MiniFashion has left."""

import argparse
from pathlib import Path
from typing import Any

import experiment
from fashioniq_repro import SMALL

import fusecomp as fc


def parse_arguments(doc: str | None) -> argparse.Namespace:
    """The command line of whatever looks at a run."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/fashioniq"), help="of the run")
    parser.add_argument("--seed", type=int, default=0, help="of the run")
    return parser.parse_args()


def open_run(workdir: Path, seed: int) -> tuple[Path, dict[str, fc.ComposedEncoder]]:
    """MiniFashion's folder, and the four models by the names of their rows in the ablation."""
    if not (workdir / "model").exists():
        raise FileNotFoundError(
            f"no finished run in {workdir}: python examples/fashioniq_repro.py --workdir {workdir}"
        )
    root = workdir / f"minifashion-{name_of(workdir, seed)}"
    quick = name_of(workdir, seed).endswith("quick")
    args = argparse.Namespace(workdir=workdir, seed=seed, quick=quick, device="cpu")
    plain, other = (experiment.pretrained_encoder(args, root, SMALL) for _ in range(2))
    tuned = fc.ComposedEncoder.load(workdir / "model", other)
    return root, {
        "plain, Sum": fc.ComposedEncoder(plain, fc.Sum()),
        "plain, Combiner": plain_combiner(plain, root, trainings(workdir, seed) / "plain"),
        "tuned, Sum": fc.ComposedEncoder(tuned.encoder, fc.Sum()),
        "tuned, Combiner": tuned,
    }


def name_of(workdir: Path, seed: int) -> str:
    """What the example calls a run: its seed, and whether it was a quick one."""
    return f"{seed}" if (workdir / f"minifashion-{seed}").exists() else f"{seed}-quick"


def trainings(workdir: Path, seed: int) -> Path:
    """The folder of the workdirs of the trainings."""
    return workdir / f"seed-{name_of(workdir, seed)}"


def validation(root: Path, **options: Any) -> fc.datasets.FashionIQ:
    """MiniFashion's queries under some protocol."""
    return fc.datasets.FashionIQ(root, "val", name="MiniFashion", **options)


def plain_combiner(plain: fc.Encoder, root: Path, workdir: Path) -> fc.ComposedEncoder:
    """The Combiner on the plain encoder: its training has ended, so resuming loads it."""
    config = fc.StageConfig.from_json((workdir / "stage2" / "config.json").read_text())
    train = fc.datasets.FashionIQ(root, "train", gallery="val", name="MiniFashion")
    trainer = fc.TwoStageTrainer(
        plain,
        fc.Combiner(SMALL.dim),
        loss=fc.InfoNCE(temperature=0.01),
        stage1=None,
        stage2=config,
        workdir=workdir,
    )
    return trainer.fit(train, validation(root)).model
