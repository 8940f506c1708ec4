"""The paper's experiment, {plain, tuned} encoder x {Sum, Combiner}, for FashionIQ and CIRR.

The two examples share its settings, encoders and results. Each brings its reader, its drawn dataset
and settings for that dataset; command_line.py has the flags.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import agreement
import backbones
import incomplete
import torch
import two_threads
from torch import nn

import fusecomp as fc
from fusecomp import distributed
from fusecomp.report import ablation_table, write_model_card, write_report
from fusecomp.training import Ablation, ablation, presets
from fusecomp.types import Encoder

Benchmark = fc.datasets.FashionIQ | fc.datasets.CIRR


@dataclass(frozen=True)
class Small:
    """Settings for a drawn dataset: the encoders, their pretraining and both stages."""

    dim: int
    pretrain_epochs: int
    pretrain_lr: float
    stage1: fc.StageConfig
    stage2: fc.StageConfig


def draw(
    args: argparse.Namespace, name: str, render: Callable[..., Path], quick: dict[str, int]
) -> Path:
    """Draw a dataset unless it is there; return its folder."""
    root: Path = args.workdir / f"{name.lower()}-{args.seed}{'-quick' if args.quick else ''}"
    with distributed.first_alone() as first:
        if first:
            print(f"{'using' if root.exists() else 'drawing'} {name} in {root}")
            render(root, args.seed, **(quick if args.quick else {}))
    return root


def run(
    args: argparse.Namespace, train: Benchmark, val: Benchmark, root: Path, small: Small
) -> Ablation:
    """Run the experiment, print its table and write its results into the workdir.

    Args:
        args: from `command_line.parse`.
        train: the triplets to learn from.
        val: the dataset to evaluate.
        root: the folder of both.
        small: the settings for a drawn dataset.
    """
    if args.skip_missing:
        train, val = incomplete.leave_out_bad_images(root, {"train": train, "val": val})
    encoder, dim = make_encoder(args, val, root, small)
    if args.combiner_checkpoint is not None:
        result = score(encoder, val, args)
    else:
        stage1, stage2 = stages(args, small)
        torch.manual_seed(args.seed)
        result = ablation(
            encoder,
            fc.Combiner(dim).to(args.device),
            train,
            val,
            loss=fc.InfoNCE(temperature=0.01),
            stage1=stage1,
            stage2=stage2,
            workdir=args.workdir / f"seed-{args.seed}{'-quick' if args.quick else ''}",
        )
    with distributed.first_alone() as first:
        if first:
            write_results(args, val, result)
    return result


def write_results(args: argparse.Namespace, val: Benchmark, result: Ablation) -> None:
    """Write report and model into the workdir and print the table."""
    rows = result.evaluations
    drawn = (
        "The images are drawn: these numbers do not compare with those of real data. Some captions "
        "are misspelt on purpose, as real ones are."
    )
    note = drawn if args.data_root is None else ""
    settings = {"seed": args.seed, **({"quick": True} if args.quick else {})}
    title = f"{val.name}, the ablation"
    write_report(rows, val, args.workdir, title=title, note=note, settings=settings)
    result.model.save(args.workdir / "model")
    *_, (row, best) = rows.items()
    source = "Published weights." if args.combiner_checkpoint else f"Trained on {val.name}."
    card = {"title": f"{val.name}: {row}", "note": f"{source} {note}".strip()}
    write_model_card(args.workdir / "model", best, settings=settings, **card)
    print(f"\n{ablation_table(rows)}\n")
    if systems := agreement.published_systems(args):
        table = agreement.agreement_table(rows, systems)
        (args.workdir / "agreement.json").write_text(json.dumps(table.to_dict(), indent=1))
        print(f"{table}\n")
    seconds = time.monotonic() - args.start
    print(f"{seconds:.0f} s; report, images and model in {args.workdir}")


def stages(args: argparse.Namespace, small: Small) -> tuple[fc.StageConfig | None, fc.StageConfig]:
    """Return the settings of both stages: the paper's on real data, smaller ones on drawn data.

    Features and tuned encoders have no stage 1.
    """
    first, second = small.stage1, small.stage2
    if args.data_root is not None:
        preset = presets.CVPRW2022 if args.preset == "2022" else presets.TOMM2023
        first, second = preset["stage1"], preset["stage2"]
    changed = []
    for number, stage in enumerate((first, second)):
        values: dict[str, Any] = {"precision": args.precision, "seed": args.seed}
        if args.quick:
            values["epochs"] = 2
        for name in ("epochs", "batch_size", "lr"):
            if getattr(args, name) is not None:
                values[name] = getattr(args, name)[number]
        if number == 0:
            values["micro_batch_size"] = args.micro_batch_size
        changed.append(replace(stage, **values))
    tuned = args.features is not None or args.clip_checkpoint is not None
    return None if tuned else changed[0], changed[1]


def make_encoder(
    args: argparse.Namespace, val: Benchmark, root: Path, small: Small
) -> tuple[Encoder, int]:
    """Make the encoder of the command line; return it and the width of its features."""
    if args.data_root is None:
        two_threads.limit_threads()
        return pretrained_encoder(args, root, small), small.dim
    if args.features is not None:
        report_missing(val)
        cached = fc.CachedEncoder.load(args.features).to(args.device)
        return cached, cached.image.features.shape[1]
    clip = backbones.make_encoder(args)
    return clip, clip.output_dim


def pretrained_encoder(args: argparse.Namespace, root: Path, small: Small) -> fc.DualEncoder:
    """Return two small encoders, pretrained on images and their descriptions."""
    import tinyclip  # needed on this path only, as it needs Pillow

    torch.manual_seed(args.seed)
    image, text = tinyclip.TinyImageEncoder(small.dim), tinyclip.TinyTextEncoder(small.dim)
    encoder = fc.DualEncoder(image, text, load_image=tinyclip.load_image).to(args.device)
    weights = args.workdir / f"tinyclip-{args.seed}{'-quick' if args.quick else ''}.pt"
    with distributed.first_alone() as first:
        if first and not weights.exists():
            pretrain(image, text, root, small, args)
            fc.ComposedEncoder(encoder, fc.Sum()).save(weights)
    fc.ComposedEncoder.load(weights, encoder, fc.Sum())
    return encoder


def pretrain(
    image: nn.Module, text: nn.Module, root: Path, small: Small, args: argparse.Namespace
) -> None:
    """Pretrain both encoders on images and their descriptions, and print the epochs."""
    import tinyclip

    print("pretraining the encoders on images and descriptions")
    epochs = 2 if args.quick else small.pretrain_epochs

    def show(epoch: int, loss: float) -> None:
        print(f"  epoch {epoch + 1}/{epochs}, loss {loss:.3f}", flush=True)

    settings: dict[str, Any] = {"epochs": epochs, "lr": small.pretrain_lr, "seed": args.seed}
    tinyclip.pretrain(image, text, root, **settings, progress=show)


def score(encoder: Encoder, val: Benchmark, args: argparse.Namespace) -> Ablation:
    """Evaluate a published Combiner and Sum without training."""
    combiner = read_combiner(args.combiner_checkpoint).to(args.device)
    cached = fc.CachedEncoder.build(encoder, val)
    rows = {
        name: fc.evaluate(fc.ComposedEncoder(cached, fusion), val)
        for name, fusion in (("Sum", fc.Sum()), ("Combiner", combiner))
    }
    return Ablation(rows, fc.ComposedEncoder(encoder, combiner))


def read_combiner(path: Path) -> fc.Combiner:
    """Read a published checkpoint ``{"epoch": ..., "Combiner": weights}``."""
    try:
        # Of what pickle can hold, tensors alone are read: no code of the file runs.
        weights = torch.load(path, map_location="cpu", weights_only=True)["Combiner"]
        return fc.Combiner.from_published(weights)
    except OSError:
        raise
    except Exception as error:  # pickle's and torch's are of many kinds
        raise ValueError(f"{path} is no published Combiner: {error}") from error


def report_missing(dataset: Benchmark) -> None:
    """Print the number of images that the sheets will lack; the features do not need them."""
    missing = [i for i in dataset.image_ids if not dataset.path(i).is_file()]
    if missing:
        print(
            f"{len(missing)} of {len(dataset.image_ids)} images of {dataset.split} are missing, "
            f"the first: {', '.join(missing[:5])}. The scores come from the features and are "
            "complete; put the images into their folder to see them on the sheets"
        )
