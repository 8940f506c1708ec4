"""The paper's experiment on FashionIQ: {plain, tuned} encoder x {Sum, Combiner}.

    python examples/fashioniq_repro.py                      # on a small dataset drawn for it
    python examples/fashioniq_repro.py --data-root DIR --backbone RN50x4-quickgelu --weights FILE
    python examples/fashioniq_repro.py --data-root DIR --clip-checkpoint A --combiner-checkpoint B
    python examples/fashioniq_repro.py --data-root DIR --features FILE

Without --data-root it draws MiniFashion, trains two small encoders on pictures and descriptions
as CLIP was, tunes the text encoder (stage 1), trains the Combiner on frozen features (stage 2),
and prints the ablation table. With --data-root it runs on FashionIQ in its published layout: on a
CLIP of open_clip, with the paper's settings; on published checkpoints, which it scores without
training; or on features that you have extracted (docs/reproduce.md says how to write them). Only
the first has tuned rows. The same command again resumes where it stopped.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import backbones
import incomplete
import torch

import fusecomp as fc
from fusecomp.protocols import Encoder
from fusecomp.report import ablation_table, contact_sheet, retrieval_sheet
from fusecomp.training import Ablation, ablation, presets

TINY_DIM = 64
CATEGORIES = ("dress", "shirt", "toptee")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data-root", type=Path, help="FashionIQ's folder; default: MiniFashion")
    data.add_argument("--features", type=Path, help="a feature file of CachedEncoder.save")
    data.add_argument("--categories", nargs="+", default=CATEGORIES, choices=CATEGORIES)
    data.add_argument("--gallery", default="original", choices=("original", "val"))
    data.add_argument(
        "--skip-missing", action="store_true", help="leave out what needs bad pictures, and say so"
    )
    backbones.add_arguments(parser)
    train = parser.add_argument_group("training (the defaults fit the data)")
    train.add_argument("--epochs", type=int, nargs=2, metavar=("STAGE1", "STAGE2"))
    train.add_argument("--batch-size", type=int, nargs=2, metavar=("STAGE1", "STAGE2"))
    train.add_argument("--lr", type=float, nargs=2, metavar=("STAGE1", "STAGE2"))
    train.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    train.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--quick", action="store_true", help="a few epochs on little data")
    parser.add_argument("--workdir", type=Path, default=Path("runs/fashioniq"), help="for results")
    args = parser.parse_args()
    sources = ("features", "backbone", "clip_checkpoint")
    given = [f"--{name.replace('_', '-')}" for name in sources if getattr(args, name) is not None]
    if (args.data_root is None) != (len(given) == 0):
        parser.error("--data-root goes with one of --features, --backbone and --clip-checkpoint")
    if len(given) > 1:
        parser.error(f"{' and '.join(given)} exclude each other")
    if (args.backbone is None) != (args.weights is None):
        parser.error("--backbone and --weights belong together")
    if args.skip_missing and (args.data_root is None or args.features is not None):
        parser.error("--skip-missing goes with --backbone or --clip-checkpoint")
    if args.combiner_checkpoint is not None and not given:
        parser.error("--combiner-checkpoint needs --data-root and the encoder it was trained on")
    return args


def draw_minifashion(args: argparse.Namespace) -> Path:
    """Draw the pictures, once for each seed and size."""
    # Beside this file; needed on this path only, as it needs Pillow.
    import minifashion

    sizes = {"train_images": 200, "val_images": 120, "train_triplets": 200, "val_queries": 60}
    name = f"minifashion-{args.seed}" + ("-quick" if args.quick else "")
    root = args.workdir / name
    print(f"{'using' if root.exists() else 'drawing'} MiniFashion in {root}")
    return minifashion.render(root, args.seed, **(sizes if args.quick else {}))


def pretrained_encoder(root: Path, args: argparse.Namespace) -> fc.DualEncoder:
    """Two small encoders that have learnt from pictures and their descriptions."""
    import tinyclip

    torch.manual_seed(args.seed)
    image, text = tinyclip.TinyImageEncoder(TINY_DIM), tinyclip.TinyTextEncoder(TINY_DIM)
    encoder = fc.DualEncoder(image, text, load=tinyclip.load_picture).to(args.device)
    weights = args.workdir / f"tinyclip-{args.seed}{'-quick' if args.quick else ''}.pt"
    if weights.exists():
        return fc.ComposedEncoder.load(weights, encoder, fc.Sum()).encoder  # type: ignore[return-value]
    print("pretraining the encoders on pictures and descriptions")
    epochs = 2 if args.quick else 16

    def show(epoch: int, loss: float) -> None:
        print(f"  epoch {epoch + 1}/{epochs}, loss {loss:.3f}", flush=True)

    tinyclip.pretrain(image, text, root, epochs=epochs, seed=args.seed, progress=show)
    fc.ComposedEncoder(encoder, fc.Sum()).save(weights)
    return encoder


def stages(args: argparse.Namespace) -> tuple[fc.StageConfig, fc.StageConfig]:
    """The settings of both stages: the paper's on FashionIQ, smaller ones on MiniFashion."""
    if args.data_root is not None:
        preset = presets.CVPRW2022 if args.preset == "2022" else presets.TOMM2023
        first, second = preset["stage1"], preset["stage2"]
    else:
        first = fc.StageConfig(epochs=10, batch_size=128, lr=1e-3, train="text")
        second = fc.StageConfig(epochs=40, batch_size=256, lr=1e-3, optimizer="adam")
    changed = []
    for number, stage in enumerate((first, second)):
        values: dict[str, Any] = {"precision": args.precision, "seed": args.seed}
        if args.quick:
            values["epochs"] = 2
        for name in ("epochs", "batch_size", "lr"):
            if getattr(args, name) is not None:
                values[name] = getattr(args, name)[number]
        changed.append(replace(stage, **values))
    return changed[0], changed[1]


def make_encoder(
    root: Path, val: fc.data.FashionIQ, args: argparse.Namespace
) -> tuple[Encoder, int]:
    """The encoder of the command line, and the width of its features."""
    if args.data_root is None:
        return pretrained_encoder(root, args), TINY_DIM
    if args.features is not None:
        report_missing(val)
        cached = fc.CachedEncoder.load(args.features).to(args.device)
        return cached, cached.image.features.shape[1]
    clip = backbones.make_encoder(args)
    return clip, clip.output_dim


def score(encoder: Encoder, val: fc.data.FashionIQ, args: argparse.Namespace) -> Ablation:
    """A published Combiner beside Sum, without training."""
    combiner = fc.Combiner.from_clip4cir(args.combiner_checkpoint).to(args.device)
    cached = fc.CachedEncoder.build(encoder, val)
    rows = {
        name: fc.evaluate(fc.ComposedEncoder(cached, fusion), val)
        for name, fusion in (("Sum", fc.Sum()), ("Combiner", combiner))
    }
    return Ablation(rows, fc.ComposedEncoder(encoder, combiner))


def report_missing(dataset: fc.data.FashionIQ) -> None:
    """Say which pictures the sheets will lack; the features do not need them."""
    missing = [i for i in dataset.image_ids if not dataset.path(i).is_file()]
    if missing:
        print(
            f"{len(missing)} of {len(dataset.image_ids)} pictures of {dataset.split} are missing, "
            f"the first: {', '.join(missing[:5])}. The scores come from the features and are "
            "complete; put the pictures into images/ to see them on the sheets"
        )


def write_results(result: Ablation, val: fc.data.FashionIQ, args: argparse.Namespace) -> None:
    """Metrics for machines, a report and two sheets of pictures for people, the model."""
    metrics = {name: dict(evaluation) for name, evaluation in result.evaluations.items()}
    last = list(result.evaluations.values())[-1]
    content = {"protocol": dict(last.protocol), "seed": args.seed, "metrics": metrics}
    (args.workdir / "metrics.json").write_text(json.dumps(content, indent=2) + "\n")
    protocol = ", ".join(f"{name} {value}" for name, value in last.protocol.items())
    text = f"# {val.name}, the ablation\n\nIn per cent; {protocol}; seed {args.seed}.\n\n"
    if args.data_root is None:
        text += "The pictures are drawn: these numbers do not compare with FashionIQ's.\n\n"
    text += f"{ablation_table(result.evaluations)}\n\n"
    text += "Some triplets: [triplets.png](triplets.png). What the last row's model found, by\n"
    text += "category: " + ", ".join(f"[{c}](results-{c}.png)" for c in last.ranking) + ".\n"
    text += "A number is a cosine, a green frame the target; the reference stays in the gallery.\n"
    (args.workdir / "report.md").write_text(text)
    queries = val.triplets()
    contact_sheet(queries[:: max(1, len(queries) // 12)][:12], val, args.workdir / "triplets.png")
    for name, ranking in last.ranking.items():
        step = max(1, len(ranking.task.queries) // 10)
        chosen = range(0, len(ranking.task.queries), step)[:10]
        retrieval_sheet(ranking, val, args.workdir / f"results-{name}.png", chosen)
    result.model.save(args.workdir / "model.pt")


def main() -> None:
    """Run the experiment."""
    start, args = time.monotonic(), parse_arguments()
    args.workdir.mkdir(parents=True, exist_ok=True)
    root = draw_minifashion(args) if args.data_root is None else args.data_root
    name = "MiniFashion" if args.data_root is None else "FashionIQ"
    options = {"categories": args.categories, "name": name}
    # Training ranks nothing, so only the pictures of its triplets count.
    train = fc.data.FashionIQ(root, "train", gallery="val", **options)
    val = fc.data.FashionIQ(root, "val", gallery=args.gallery, **options)
    if args.skip_missing:
        splits = {"train": train, "val": val}
        train, val = incomplete.leave_out_bad_pictures("fashioniq", root, splits)
    first, second = stages(args)
    encoder, dim = make_encoder(root, val, args)
    if args.combiner_checkpoint is not None:
        result = score(encoder, val, args)
    else:
        torch.manual_seed(args.seed)
        result = ablation(
            encoder,
            fc.Combiner(dim).to(args.device),
            train,
            val,
            loss=fc.InfoNCE(temperature=0.01),
            stage1=first if args.features is None and args.clip_checkpoint is None else None,
            stage2=second,
            workdir=args.workdir / f"seed-{args.seed}{'-quick' if args.quick else ''}",
        )
    write_results(result, val, args)
    print(f"\n{ablation_table(result.evaluations)}\n")
    protocol = next(iter(result.evaluations.values())).protocol
    print("R@k in per cent; " + ", ".join(f"{name} {value}" for name, value in protocol.items()))
    print(f"{time.monotonic() - start:.0f} s; report, pictures and model in {args.workdir}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
