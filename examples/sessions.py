"""Search in rounds: each strategy of a session, in chains and towards a goal.

    python examples/sessions.py                        # MiniFashion and MiniCIRR, five seeds
    python examples/sessions.py --quick --seeds 0

Each seed draws a dataset, pretrains two small encoders and trains a Combiner on their frozen
features, by the recommended recipe in half of its epochs; no epoch is chosen. Its validation
queries become sessions, in the gallery of all validation images.

Towards a goal, a simulated user (--queries of them) sees the best image; unless it is the target,
he says how it differs from that, up to five rounds. He knows what the images show, and writes as
the captions of the dataset are written. For Rocchio he also likes or dislikes what he sees. In a
chain, text i of three leads from image i to image i + 1, and the last one to the target: queries
one behind the other where one's target is the next one's reference, as in Multi-turn FashionIQ.

The intervals are Student's over the seeds, of differences from the last round alone. The workdir
keeps trainings and scores: the same command goes on where it stopped.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cirr_repro
import command_line
import experiment
import fashioniq_repro
import torch
from intervals import student

import fusecomp as fc
from fusecomp.caching import PartlyCachedEncoder
from fusecomp.evaluation import evaluate_rounds, simulate_rounds
from fusecomp.report import Table
from fusecomp.retrieval import LastRound, MeanOfRounds, Rocchio, Strategy
from fusecomp.training import presets

DATASETS: dict[str, tuple[ModuleType, Any]] = {
    "MiniFashion": (fashioniq_repro, fc.datasets.FashionIQ),
    "MiniCIRR": (cirr_repro, fc.datasets.CIRR),
}
GOAL: dict[str, Strategy] = {
    "LastRound()": LastRound(),
    "MeanOfRounds()": MeanOfRounds(),
    "Rocchio(), judged": Rocchio(),
    "Rocchio(rounds=MeanOfRounds()), judged": Rocchio(rounds=MeanOfRounds()),
}
CHAIN: dict[str, Strategy] = {"LastRound()": LastRound(), "MeanOfRounds()": MeanOfRounds()}
# The columns of a table; the last one is compared.
GOAL_METRICS = ["round 1/hits@1", "round 3/hits@1", "round 5/recall@10", "round 5/hits@1"]
CHAIN_METRICS = ["round 1/recall@10", "round 2/recall@10", "round 3/recall@1", "round 3/recall@10"]
Scores = Mapping[str, Sequence[Mapping[str, float]]]  # by strategy: the metrics of each seed


def some_queries(data: fc.Dataset, name: str, most: int) -> fc.datasets.Triplets:
    """Return queries from all over a dataset, with all of its images as their gallery."""
    queries = [replace(query, group=None) for task in data.tasks() for query in task.queries]
    chosen = queries[:: -(-len(queries) // most)]
    return fc.datasets.Triplets(chosen, files(data), gallery=data.image_ids, name=name)


def files(data: fc.Dataset) -> dict[str, Path]:
    """Return the file of each image."""
    return {image_id: data.path(image_id) for image_id in data.image_ids}


class Chains(fc.datasets.Triplets):
    """Sessions of queries where the target of one is the reference of the next one."""

    def __init__(self, data: fc.Dataset, name: str, rounds: int = 3) -> None:
        queries = [query for task in data.tasks() for query in task.queries]
        following = {query.reference_id: query for query in queries}
        chained, self._sessions = [], []
        for first in queries:
            steps = [first]
            while len(steps) < rounds and (query := following.get(str(steps[-1].target_id))):
                steps.append(query)
            if len({image for step in steps for image in step.image_ids}) == rounds + 1:
                names = tuple(f"{first.query_id}/{number}" for number in range(rounds))
                self._sessions.append(names)
                chained += [
                    replace(step, query_id=name, target_id=steps[-1].target_id, group=None)
                    for name, step in zip(names, steps, strict=True)
                ]
        super().__init__(chained, files(data), gallery=data.image_ids, name=name)

    @property
    def protocol(self) -> dict[str, str]:
        """The options that make scores comparable or not."""
        return {**super().protocol, "sessions": "chain"}

    def sessions(self) -> list[tuple[str, ...]]:
        """Return the query ids of each session, in the order of its rounds."""
        return self._sessions


def prepare(
    name: str, seed: int, args: argparse.Namespace
) -> tuple[fc.DualEncoder, fc.Fusion, fc.Dataset, Path]:
    """Draw a dataset, pretrain its encoders and train a Combiner, unless that is done."""
    example, reader = DATASETS[name]
    folder, small = args.workdir / name, example.SMALL
    folder.mkdir(parents=True, exist_ok=True)
    own = argparse.Namespace(workdir=folder, seed=seed, quick=args.quick, device="cpu")
    root = example.draw(own)
    encoder = experiment.pretrained_encoder(own, root, small)
    train, val = (reader(root, split, name=name) for split in ("train", "val"))
    cached = fc.CachedEncoder.build(encoder, train, path=folder / f"{root.name}.safetensors")
    torch.manual_seed(seed)
    epochs = 2 if args.quick else small.stage2.epochs // 2
    lr = presets.RECOMMENDED["stage2"].lr
    trained = fc.Trainer(
        fc.ComposedEncoder(cached, fc.Combiner(small.dim)),
        loss=presets.RECOMMENDED["loss"],
        config=replace(small.stage2, epochs=epochs, lr=lr, seed=seed),
        workdir=folder / f"{root.name}-combiner",
    ).fit(train)
    return encoder, trained.model.fusion, val, root


def score(name: str, seed: int, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the metrics of one seed by kind of session and strategy."""
    from drawn import users  # needed here only, as it needs Pillow

    path = args.workdir / name / f"scores-{seed}{'-quick' if args.quick else ''}.json"
    if path.exists():
        kept: dict[str, dict[str, Any]] = json.loads(path.read_text())
        return kept
    encoder, fusion, val, root = prepare(name, seed, args)
    make = {"MiniFashion": users.fashion_user, "MiniCIRR": users.cirr_user}[name]
    found: dict[str, dict[str, Any]] = {"goal": {}, "chain": {}}
    goals, chains = some_queries(val, name, args.queries), Chains(val, f"chains of {name}")
    # The user writes new texts, but the images are known.
    asking = fc.ComposedEncoder(PartlyCachedEncoder.build(encoder, val, sides=["image"]), fusion)
    for title, strategy in GOAL.items():
        user = make(root, judges="judged" in title)
        found["goal"][title] = simulate_rounds(asking, goals, user, strategy)
    known = fc.ComposedEncoder(fc.CachedEncoder.build(encoder, chains), fusion)
    for title, strategy in CHAIN.items():
        found["chain"][title] = evaluate_rounds(known, chains, strategy, exclude_seen=True)
    for kind, evaluations in found.items():
        for title, evaluation in evaluations.items():
            print(f"{name}, seed {seed}, {kind}, {title}\n{evaluation}\n", flush=True)
    scores = {kind: {title: dict(e) for title, e in of.items()} for kind, of in found.items()}
    path.write_text(json.dumps(scores, indent=1))
    return scores


def table(scores: Scores, metrics: Sequence[str]) -> Table:
    """Return means over the seeds, and differences from the first row in the last metric."""
    base, last = next(iter(scores.values())), metrics[-1]
    rows = []
    for title, seeds in scores.items():
        cells = [f"{statistics.fmean(seed[metric] for seed in seeds):.1f}" for metric in metrics]
        each = [seed[last] - first[last] for seed, first in zip(seeds, base, strict=True)]
        shown = ""
        if len(each) > 1 and any(each):
            low, high = student(each)
            shown = f"{statistics.fmean(each):+.1f} [{low:+.1f}, {high:+.1f}]"
        rows.append([title, *cells, shown])
    return Table(["strategy", *metrics, "difference in the last"], rows, [], {})


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=[*DATASETS])
    parser.add_argument("--queries", type=int, default=300, help="simulated sessions a seed")
    parser.add_argument("--quick", action="store_true", help="two epochs on smaller datasets")
    parser.add_argument("--workdir", type=Path, default=Path("runs/sessions"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    content = {}
    for name in args.datasets:
        seeds = [score(name, seed, args) for seed in args.seeds]
        for kind, metrics in (("goal", GOAL_METRICS), ("chain", CHAIN_METRICS)):
            scores = {title: [seed[kind][title] for seed in seeds] for title in seeds[0][kind]}
            content[f"{name}, {kind}"] = scores
            print(f"{name}, {kind}, in per cent:\n\n{table(scores, metrics)}\n", flush=True)
    (args.workdir / "sessions.json").write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    command_line.command(main)
