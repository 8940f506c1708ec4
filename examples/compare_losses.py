"""Compare the losses: one Combiner for each, on the same frozen features of a drawn dataset.

    python examples/compare_losses.py [--seeds 0 1 2] [--quick]

Draws MiniFashion, pretrains two small encoders as fashioniq_repro.py does, caches their features,
trains a Combiner with each loss from the same weights, and prints the recalls of the last epoch, as
means over the seeds. The teacher of DistillationLoss is the Combiner that was trained with InfoNCE.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import command_line
import experiment
import fashioniq_repro
import torch
import two_threads
from torch import Tensor

import fusecomp as fc
from fusecomp import losses
from fusecomp.types import Loss

DIM, T = fashioniq_repro.SMALL.dim, 0.05
METRICS = ("mean/recall@10", "mean/recall@50", "mean")


class Prepared:
    """Datasets with frozen features, and the tables that some losses need."""

    def __init__(self, args: argparse.Namespace) -> None:
        root = fashioniq_repro.draw(args)
        self.train, self.val = (
            fc.datasets.FashionIQ(root, split, name="MiniFashion") for split in ("train", "val")
        )
        encoder = experiment.pretrained_encoder(args, root, fashioniq_repro.SMALL)
        self.encoder = fc.CachedEncoder.build(encoder, self.train, self.val)

    def pairs(self) -> Tensor:
        """Return the positions of reference and target in the dataset for every triplet: [N, 2]."""
        place = {image_id: number for number, image_id in enumerate(self.train.image_ids)}
        triplets = self.train.triplets()
        pairs = [[place[t.reference_id], place[t.target_id or ""]] for t in triplets]
        return torch.tensor(pairs, device=self.encoder.image.features.device)

    def bank(self) -> fc.InfoNCE:
        """Make an InfoNCE with all training targets as candidates."""
        rows = self.pairs()[:, 1].unique()
        names = [self.train.image_ids[row] for row in rows.tolist()]
        return fc.InfoNCE(T, memory=losses.Bank(self.encoder.encode_image(names), rows))

    def teacher(self, model: fc.ComposedEncoder) -> losses.DistillationLoss:
        """Make a DistillationLoss with a trained model's features of the training set."""
        triplets, names = self.train.triplets(), list(self.train.image_ids)
        queries = model.encode_query(
            [t.reference_id for t in triplets], [t.texts[0] for t in triplets]
        )
        ids = torch.arange(len(names), device=queries.device)
        return losses.DistillationLoss(
            queries, self.pairs(), model.encode_gallery(names), ids, temperature=T
        )


def own_losses(data: Prepared) -> dict[str, Callable[[], Loss]]:
    """Return a maker of each loss, by its name in the table."""
    return {
        "InfoNCE": lambda: fc.InfoNCE(T),
        "InfoNCE, symmetric": lambda: fc.InfoNCE(T, symmetric=True),
        "InfoNCE, learnable T": lambda: fc.InfoNCE(losses.LearnableTemperature()),
        "InfoNCE, exclude target": lambda: fc.InfoNCE(T, exclude="target"),
        "InfoNCE, bank": data.bank,
        "InfoNCE, queue": lambda: fc.InfoNCE(T, exclude="target", memory=losses.Queue(1024, DIM)),
        "HardNegativeNCE": lambda: losses.HardNegativeNCE(T, beta=0.5),
        "MultiPositiveNCE": lambda: losses.MultiPositiveNCE(T),
        "SigmoidLoss": losses.SigmoidLoss,
        "TripletMarginLoss, hardest": lambda: losses.TripletMarginLoss(0.2, "hardest"),
        "TripletMarginLoss, semi-hard": lambda: losses.TripletMarginLoss(0.2),
        "CosineAlignmentLoss": losses.CosineAlignmentLoss,
        "InfoNCE + 0.5 CosineAlignmentLoss": lambda: losses.CombinedLoss(
            {"find": (1.0, fc.InfoNCE(T)), "align": (0.5, losses.CosineAlignmentLoss())}
        ),
    }


def train(data: Prepared, loss: Loss, args: argparse.Namespace) -> fc.ComposedEncoder:
    """Train a Combiner, from the same weights for every loss."""
    torch.manual_seed(args.seed)
    epochs = 2 if args.quick else 30
    config = fc.StageConfig(
        epochs=epochs, batch_size=256, lr=1e-3, optimizer="adam", seed=args.seed
    )
    model = fc.ComposedEncoder(data.encoder, fc.Combiner(DIM).to(args.device))
    return fc.Trainer(model, loss=loss, config=config).fit(data.train).model


def recalls(args: argparse.Namespace) -> dict[str, fc.Evaluation]:
    """Train and evaluate with every loss on the dataset of one seed."""
    data, found = Prepared(args), {}
    for name, make in own_losses(data).items():
        model = train(data, make(), args)
        found[name] = fc.evaluate(model, data.val)
        if name == "InfoNCE":
            found["DistillationLoss"] = fc.evaluate(
                train(data, data.teacher(model), args), data.val
            )
        print(f"seed {args.seed}, {name}: {found[name]['mean']:.2f}", flush=True)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each")
    parser.add_argument("--quick", action="store_true", help="few epochs on a smaller dataset")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workdir", type=Path, default=Path("runs/losses"))
    args = parser.parse_args()
    two_threads.limit_threads()
    args.workdir.mkdir(parents=True, exist_ok=True)
    runs = [recalls(argparse.Namespace(**vars(args), seed=seed)) for seed in args.seeds]
    print(f"\n{'':<30} {'R@10':>6} {'R@50':>6} {'mean':>6}")
    for name in sorted(runs[0], key=lambda name: -mean(runs, name, "mean")):
        row = " ".join(f"{mean(runs, name, m):>6.2f}" for m in METRICS)
        print(f"{name:<30} {row}")


def mean(runs: list[dict[str, fc.Evaluation]], name: str, metric: str) -> float:
    """Return the mean of a metric over the seeds, in per cent."""
    return statistics.fmean(run[name][metric] for run in runs)


if __name__ == "__main__":
    command_line.command(main)
