"""The paper's experiment on FashionIQ: {plain, tuned} encoder x {Sum, Combiner}.

    python examples/fashioniq_repro.py                      # on a small dataset drawn for it
    python examples/fashioniq_repro.py --data-root DIR --backbone RN50x4-quickgelu --weights FILE
    python examples/fashioniq_repro.py --data-root DIR --clip-checkpoint A --combiner-checkpoint B
    python examples/fashioniq_repro.py --data-root DIR --features FILE
    python examples/fashioniq_repro.py ... --rehearse       # only say what the same run will need
    torchrun --nproc-per-node 2 examples/fashioniq_repro.py ...         # on several GPUs

Without --data-root it draws MiniFashion, pretrains two small encoders on images and descriptions,
tunes the text encoder (stage 1), trains the Combiner on frozen features (stage 2) and prints the
ablation table. With --data-root it runs on FashionIQ in its published layout: on a CLIP of
open_clip with the paper's settings; on published checkpoints, which it scores without training; or
on features that you extracted (see docs/reproduce.md), without stage 1. The same command again
resumes where it stopped (pretraining begins anew).
"""

import argparse
from pathlib import Path

import command_line
import experiment
import rehearsal
from forecast import WholeRun

import fusecomp as fc

CATEGORIES = ("dress", "shirt", "toptee")
SMALL = experiment.Small(
    dim=64,
    pretrain_epochs=16,
    pretrain_lr=1e-3,
    stage1=fc.StageConfig(epochs=10, batch_size=128, lr=1e-3, trainable="text"),
    stage2=fc.StageConfig(epochs=40, batch_size=256, lr=1e-3, optimizer="adam"),
)


def draw(args: argparse.Namespace) -> Path:
    """Draw MiniFashion."""
    from drawn import minifashion  # needed on this path only, as it needs Pillow

    quick = {"train_images": 200, "val_images": 120, "train_triplets": 200, "val_queries": 60}
    return experiment.draw(args, "MiniFashion", minifashion.render, quick)


def main() -> None:
    """Run the experiment."""
    parser = command_line.make_parser(__doc__, "FashionIQ")
    parser.add_argument(
        "--categories", nargs="+", default=CATEGORIES, choices=CATEGORIES, help="default: all"
    )
    parser.add_argument(
        "--gallery",
        default="original",
        choices=("original", "val"),
        help="the split file (default), or the images of the queries alone",
    )
    args = command_line.parse(parser)
    root = args.data_root or draw(args)
    name = "MiniFashion" if args.data_root is None else "FashionIQ"
    options = {"categories": args.categories, "name": name}
    # Training ranks nothing, so only the images of its triplets count.
    train = fc.datasets.FashionIQ(root, "train", gallery="val", **options)
    val = fc.datasets.FashionIQ(root, "val", gallery=args.gallery, **options)
    if args.rehearse is not None:
        rehearsal.run(WholeRun(args, train, val, SMALL), root)
    else:
        experiment.run(args, train, val, root, SMALL)


if __name__ == "__main__":
    command_line.command(main)
