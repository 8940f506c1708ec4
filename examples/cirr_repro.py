"""The paper's experiment on CIRR: {plain, tuned} encoder x {Sum, Combiner}.

    python examples/cirr_repro.py                           # on a small dataset drawn for it
    python examples/cirr_repro.py --data-root DIR --backbone RN50x4-quickgelu --weights FILE
    python examples/cirr_repro.py --data-root DIR --clip-checkpoint A --combiner-checkpoint B
    python examples/cirr_repro.py --data-root DIR --features FILE
    python examples/cirr_repro.py ... --rehearse            # only say what the same run will need
    python examples/cirr_repro.py ... --submit              # also the server's files of test1
    torchrun --nproc-per-node 2 examples/cirr_repro.py ...  # on several GPUs

Without --data-root it draws MiniCIRR, scenes of toys in groups of six, and runs both stages on two
small encoders. With --data-root it runs on CIRR (rc2) in a published layout: on a CLIP of
open_clip with the paper's settings; on published checkpoints, which it scores without training; or
on features that you extracted (for --submit those of test1 too). The same command again resumes
where it stopped (pretraining begins anew).
"""

import argparse
from pathlib import Path

import command_line
import experiment
import rehearsal
from forecast import WholeRun

import fusecomp as fc
from fusecomp import distributed

SMALL = experiment.Small(
    dim=128,
    pretrain_epochs=16,
    pretrain_lr=2e-3,
    stage1=fc.StageConfig(epochs=10, batch_size=128, lr=1e-3, trainable="text"),
    stage2=fc.StageConfig(epochs=24, batch_size=256, lr=1e-3, optimizer="adam"),
)


def draw(args: argparse.Namespace) -> Path:
    """Draw MiniCIRR."""
    from drawn import minicirr  # needed on this path only, as it needs Pillow

    quick = {"train_groups": 40, "val_groups": 20, "test_groups": 10}
    return experiment.draw(args, "MiniCIRR", minicirr.render, quick)


def main() -> None:
    """Run the experiment."""
    parser = command_line.make_parser(__doc__, "CIRR")
    parser.add_argument(
        "--submit", action="store_true", help="also write the server's files of test1"
    )
    args = command_line.parse(parser)
    root = args.data_root or draw(args)
    name = "MiniCIRR" if args.data_root is None else "CIRR"
    train, val = (fc.datasets.CIRR(root, split, name) for split in ("train", "val"))
    if args.rehearse is not None:
        ranked = [fc.datasets.CIRR(root, "test1", name)] if args.submit else []
        rehearsal.run(WholeRun(args, train, val, SMALL, ranked), root)
        return
    result = experiment.run(args, train, val, root, SMALL)
    if args.submit:
        ranking = fc.rank(result.model, fc.datasets.CIRR(root, "test1", name))
        with distributed.first_alone() as first:
            if first:
                write_submission(ranking, args.workdir / "submission")


def write_submission(ranking: fc.Ranking, folder: Path) -> None:
    """Write the files of CIRR's server."""
    for path in fc.evaluation.write_cirr_submission(ranking, folder):
        print(f"for the server: {path}")


if __name__ == "__main__":
    command_line.command(main)
