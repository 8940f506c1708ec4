"""Search in rounds with a simulated user, by each strategy of a session.

python examples/sessions.py                        # MiniFashion and MiniCIRR, five seeds
python examples/sessions.py --quick --seeds 0
"""

import argparse
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cirr_repro
import command_line
import experiment
import fashioniq_repro
import torch

import fusecomp as fc
from fusecomp.training import presets

DATASETS: dict[str, tuple[ModuleType, Any]] = {
    "MiniFashion": (fashioniq_repro, fc.datasets.FashionIQ),
    "MiniCIRR": (cirr_repro, fc.datasets.CIRR),
}


def prepare(
    name: str, seed: int, args: argparse.Namespace
) -> tuple[fc.ComposedEncoder, fc.Dataset]:
    """Draw a dataset, pretrain its encoders and train a Combiner, unless that is done."""
    example, reader = DATASETS[name]
    folder = args.workdir / name
    folder.mkdir(parents=True, exist_ok=True)
    own = argparse.Namespace(workdir=folder, seed=seed, quick=args.quick, device="cpu")
    root = example.draw(own)
    encoder = experiment.pretrained_encoder(own, root, example.SMALL)
    train, val = (reader(root, split, name=name) for split in ("train", "val"))
    cached = fc.CachedEncoder.build(encoder, train, path=folder / f"{root.name}.safetensors")
    torch.manual_seed(seed)
    trained = fc.Trainer(
        fc.ComposedEncoder(cached, fc.Combiner(example.SMALL.dim)),
        loss=presets.RECOMMENDED["loss"],
        config=replace(
            example.SMALL.stage2,
            epochs=2 if args.quick else example.SMALL.stage2.epochs,
            lr=presets.RECOMMENDED["stage2"].lr,
            seed=seed,
        ),
        workdir=folder / f"{root.name}-combiner",
    ).fit(train)
    return fc.ComposedEncoder(encoder, trained.model.fusion).eval(), val


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=[*DATASETS])
    parser.add_argument("--quick", action="store_true", help="two epochs on smaller datasets")
    parser.add_argument("--workdir", type=Path, default=Path("runs/sessions"))
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    args = parse_arguments()
    torch.set_num_threads(1)
    for seed in args.seeds:
        for name in args.datasets:
            model, val = prepare(name, seed, args)
            print(name, seed, fc.evaluate(model, val), flush=True)


if __name__ == "__main__":
    command_line.command(main)
