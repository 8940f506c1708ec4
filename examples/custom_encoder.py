"""Train your own encoders on your own table of triplets: both stages, then the ablation table.

    python examples/custom_encoder.py                                   # on MiniFashion as a CSV
    python examples/custom_encoder.py --table mine.csv --images images/
    python examples/custom_encoder.py --text-model all-MiniLM-L6-v2     # a pretrained text encoder

The table has the columns reference, text, target and split (train or val). Linear heads bring both
encoders to one width. Only --text-model is pretrained, so the plain rows are near chance. The
workdir gets the report, an evaluation for `fusecomp compare`, and the folder `model`; the same
command again resumes.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import command_line
import tinyclip
import torch
from torch import nn

import fusecomp as fc
from fusecomp import distributed
from fusecomp.report import ablation_table, write_report
from fusecomp.training import ablation


def draw_table(root: Path) -> tuple[Path, Path]:
    """Draw MiniFashion with its triplets in one CSV file; return the file and the image folder."""
    with distributed.first_alone() as first:
        if first:
            write_table(root)
    return root / "triplets.csv", root / "images"


def write_table(root: Path) -> None:
    """Draw the images and write the table into the same folder."""
    from drawn import minifashion  # needs Pillow

    minifashion.render(root, seed=0, train_images=300, val_images=150)
    with (root / "triplets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("reference", "text", "target", "split"))
        for path in sorted((root / "captions").glob("cap.*.json")):
            for row in json.loads(path.read_text(encoding="utf-8")):
                text, split = " and ".join(row["captions"]), path.name.split(".")[2]
                if "target" in row:
                    writer.writerow((row["candidate"], text, row["target"], split))


def text_encoder(name: str | None) -> tuple[nn.Module, int]:
    """Return a small text encoder, or one of sentence-transformers, and its width."""
    if name is None:
        return tinyclip.TinyTextEncoder(dim=96), 96
    from sentence_transformers import SentenceTransformer  # extra "sentence"

    text = fc.encoders.SentenceTransformersText(SentenceTransformer(name))
    return text, text.output_dim


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table", type=Path, help="a .csv or .jsonl file; default: draw MiniFashion"
    )
    parser.add_argument("--images", type=Path, help="the folder of the table's images")
    parser.add_argument("--text-model", help="a model of sentence-transformers, by name or folder")
    parser.add_argument("--epochs", type=int, default=8, help="of each stage")
    workdir = Path("runs/custom")
    parser.add_argument("--workdir", type=Path, default=workdir, help="the folder for results")
    args = parser.parse_args()
    if (args.table is None) != (args.images is None):
        parser.error("--table and --images belong together")
    if args.images and args.workdir.resolve().is_relative_to(args.images.resolve()):
        parser.error("--workdir lies in --images, all of whose images are in the gallery")
    table, images = (args.table, args.images) if args.table else draw_table(args.workdir / "data")
    train, val = (
        fc.datasets.TripletTable(table, images, split=split) for split in ("train", "val")
    )
    torch.manual_seed(0)
    text, width = text_encoder(args.text_model)
    vision, load = tinyclip.TinyImageEncoder(dim=128), tinyclip.load_image
    encoder = fc.DualEncoder(vision, text, load, image_dim=128, text_dim=width, dim=64)
    stage1 = fc.StageConfig(epochs=args.epochs, batch_size=128, lr=3e-4, trainable="both")
    stage2 = fc.StageConfig(epochs=args.epochs, batch_size=128, lr=1e-3)
    combiner, loss = fc.Combiner(dim=64), fc.InfoNCE(temperature=0.05)
    stages: dict[str, Any] = {"stage1": stage1, "stage2": stage2, "workdir": args.workdir}
    result = ablation(encoder, combiner, train, val, loss=loss, **stages)
    with distributed.first_alone() as first:
        if first:
            write_report(result.evaluations, val, args.workdir, title=f"{table}, the ablation")
            result.model.save(args.workdir / "model")
    print(f"{ablation_table(result.evaluations)}\n\nreport, images and model in {args.workdir}")


if __name__ == "__main__":
    command_line.command(main)
