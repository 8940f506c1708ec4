"""Compare the paper's training with changes to it, on two drawn datasets and over seeds.

    python examples/recipes.py [--seeds 0 1 2 3 4] [--datasets MiniFashion MiniCIRR] [--quick]

Each seed draws a dataset, pretrains two small encoders, and tunes the text encoder: at the paper's
temperature, and at 0.05. On the features of each, every recipe trains a full Combiner, with the
settings of fashioniq_repro.py or cirr_repro.py but half of their epochs. Validation queries pick
the best epochs; the table is of fresh queries, drawn with another seed, which no training has seen.
The workdir keeps each finished evaluation, so that the same command goes on where it stopped, and
gets recipes.json.
"""

import argparse
import copy
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cirr_repro
import command_line
import experiment
import fashioniq_repro
import torch
import two_threads
from intervals import student

import fusecomp as fc
from fusecomp.evaluation import Evaluation, compare
from fusecomp.losses import Bank
from fusecomp.report import Table
from fusecomp.training import interpolate


@dataclass(frozen=True)
class Recipe:
    """Settings of stage 2; the defaults are the paper's, with a rate for small Combiners."""

    temperature: float = 0.01
    bank: str = "none"  # or "targets", or "images": the references too
    lr_schedule: str = "constant"
    dropout: float = 0.5


BANK = Recipe(temperature=0.05, dropout=0.2, bank="targets")
RECIPES = {
    "paper": Recipe(),
    "temperature 0.05": Recipe(temperature=0.05),
    "+ dropout 0.2": Recipe(temperature=0.05, dropout=0.2),
    "+ bank": BANK,
    "+ cosine": replace(BANK, lr_schedule="cosine"),
    "+ references": replace(BANK, lr_schedule="cosine", bank="images"),
}
# The temperature of stage 1, the share of its weights beside the plain ones, and what is compared.
ENCODERS: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "plain": (0.01, 0.0, ("Sum", *RECIPES)),
    "tuned": (0.01, 1.0, ("Sum", *RECIPES)),
    "tuned at 0.05": (0.05, 1.0, ("Sum", "temperature 0.05", "+ cosine")),
    "3/4 tuned at 0.05": (0.05, 0.75, ("Sum",)),
}
DATASETS: dict[str, tuple[Any, Any]] = {
    "MiniFashion": (fashioniq_repro, fc.datasets.FashionIQ),
    "MiniCIRR": (cirr_repro, fc.datasets.CIRR),
}
METRICS = {  # and the names of their columns
    "MiniFashion": {"mean/recall@10": "R@10", "mean/recall@50": "R@50", "mean": "mean"},
    "MiniCIRR": {
        "recall@1": "R@1",
        "recall@5": "R@5",
        "recall_subset@1": "Rs@1",
        "mean(recall@5, recall_subset@1)": "(R@5 + Rs@1)/2",
    },
}
FRESH = 1000  # the seed of the reported queries, less that of the run
Cells = Mapping[tuple[str, str], Evaluation]  # by encoder and recipe


class Prepared:
    """One seed's datasets, and the features of one encoder."""

    def __init__(self, name: str, encoder: str, args: argparse.Namespace) -> None:
        example, reader = DATASETS[name]
        root = example.draw(args)
        other = example.draw(argparse.Namespace(**vars(args) | {"seed": args.seed + FRESH}))
        self.small, self.args = example.SMALL, args
        self.train, self.val = (reader(root, split, name=name) for split in ("train", "val"))
        self.fresh = reader(other, "val", name=name)
        plain = experiment.pretrained_encoder(args, root, self.small)
        temperature, weight, _ = ENCODERS[encoder]
        tuned = copy.deepcopy(plain)
        fc.Trainer(
            fc.ComposedEncoder(tuned, fc.Sum()),
            loss=fc.InfoNCE(temperature),
            config=self.settings(self.small.stage1),
            workdir=own(args) / f"stage 1 at {temperature}",
        ).fit(self.train, self.val)
        self.live, self.folder = interpolate(plain, tuned, weight), own(args) / encoder
        path = self.folder / "fresh.safetensors"
        self.fresh_encoder = fc.CachedEncoder.build(self.live, self.fresh, path=path)

    @cached_property
    def encoder(self) -> fc.CachedEncoder:
        """The features to train with."""
        path = self.folder / "features.safetensors"
        return fc.CachedEncoder.build(self.live, self.train, self.val, path=path)

    def settings(self, stage: fc.StageConfig, **changes: Any) -> fc.StageConfig:
        """Return the settings of a stage for this seed."""
        stage = replace(stage, seed=self.args.seed, **changes)
        return replace(stage, epochs=2) if self.args.quick else stage

    def bank(self, kind: str) -> Bank | None:
        """Make a bank of the training targets, or of the references too."""
        if kind == "none":
            return None
        place = {image_id: number for number, image_id in enumerate(self.train.image_ids)}
        triplets = self.train.triplets()
        names = {t.target_id for t in triplets}
        if kind == "images":
            names |= {t.reference_id for t in triplets}
        ids = sorted(place[name] for name in names)
        features = self.encoder.encode_image([self.train.image_ids[row] for row in ids])
        return Bank(features, torch.tensor(ids))

    def trained(self, recipe: Recipe) -> fc.Combiner:
        """Train a Combiner by a recipe, with the same seed for all."""
        torch.manual_seed(self.args.seed)
        combiner = fc.Combiner(self.small.dim, dropout=recipe.dropout)
        fc.Trainer(
            fc.ComposedEncoder(self.encoder, combiner),
            loss=fc.InfoNCE(recipe.temperature, memory=self.bank(recipe.bank)),
            config=self.settings(
                self.small.stage2,
                epochs=self.small.stage2.epochs // 2,
                eval_every_epochs=4,
                lr_schedule=recipe.lr_schedule,
            ),
        ).fit(self.train, self.val)
        return combiner


def own(args: argparse.Namespace) -> Path:
    """Return the folder of a seed."""
    folder: Path = args.workdir / f"seed-{args.seed}{'-quick' if args.quick else ''}"
    return folder


def evaluated(name: str, args: argparse.Namespace) -> Cells:
    """Return the evaluations of one seed; compute those that are not in its folder."""
    cells = {}
    for encoder, (*_, recipes) in ENCODERS.items():
        prepared = None
        for recipe in recipes:
            path = own(args) / encoder / f"{recipe}.npz"
            if not path.exists():
                prepared = prepared or Prepared(name, encoder, args)
                fusion = prepared.trained(RECIPES[recipe]) if recipe in RECIPES else fc.Sum()
                model = fc.ComposedEncoder(prepared.fresh_encoder, fusion)
                fc.evaluate(model, prepared.fresh).save(path)
            found = cells[encoder, recipe] = Evaluation.load(path)
            headline = found[found.default_metric]
            print(f"{name}, seed {args.seed}, {encoder}, {recipe}: {headline:.2f}", flush=True)
    return cells


def difference(before: Sequence[Evaluation], after: Sequence[Evaluation]) -> dict[str, Any]:
    """Return the paired difference of the headline, its 95 % interval, and those of each seed.

    Over seeds the interval is Student's; of one seed it is that of its queries.
    """
    pairs = [
        compare(a, b, changes=0, resamples=2000).differences[b.default_metric]
        for a, b in zip(before, after, strict=True)
    ]
    each = [pair.difference for pair in pairs]
    mean, low, high = statistics.fmean(each), pairs[0].low, pairs[0].high
    if len(each) > 1:
        low, high = student(each)
    return {"mean": mean, "low": low, "high": high, "each": each}


def rows(name: str, seeds: Sequence[Cells]) -> Iterator[dict[str, Any]]:
    """Yield a row for each encoder and recipe, with its difference from the paper's."""
    for encoder, recipe in seeds[0]:
        base = "plain" if encoder == "plain" else "tuned", "Sum" if recipe == "Sum" else "paper"
        found = [cells[encoder, recipe] for cells in seeds]
        yield {
            "encoder": encoder,
            "recipe": recipe,
            **{metric: statistics.fmean(one[metric] for one in found) for metric in METRICS[name]},
            "difference": difference([cells[base] for cells in seeds], found),
        }


def shown(row: Mapping[str, Any], metrics: Iterable[str]) -> list[str]:
    """Return the cells of a row."""
    values = [f"{row[metric]:.2f}" for metric in metrics]
    mean, low, high, each = row["difference"].values()
    last = [f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", f"{sum(d > 0 for d in each)} of {len(each)}"]
    return [row["encoder"], row["recipe"], *values, *(last if any(each) else ["", ""])]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=[*DATASETS])
    parser.add_argument("--quick", action="store_true", help="two epochs on smaller datasets")
    parser.add_argument("--workdir", type=Path, default=Path("runs/recipes"))
    args = parser.parse_args()
    two_threads.limit_threads()
    content = {}
    for name in args.datasets:
        (folder := args.workdir / name).mkdir(parents=True, exist_ok=True)
        runs = [{"seed": seed, "workdir": folder, "device": "cpu"} for seed in args.seeds]
        seeds = [evaluated(name, argparse.Namespace(**vars(args) | run)) for run in runs]
        content[name] = list(rows(name, seeds))
    for name, found in content.items():
        head = ["encoder", "recipe", *METRICS[name].values(), "difference", "better on"]
        table = Table(head, [shown(row, METRICS[name]) for row in found], [], {})
        print(f"\n{name}, in per cent; differences from the paper's recipe:\n\n{table}")
    (args.workdir / "recipes.json").write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    command_line.command(main)
