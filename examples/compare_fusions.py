"""Compare the fusions: each trained by two recipes on the same frozen features.

    python examples/compare_fusions.py                           # two drawn datasets, five seeds
    python examples/compare_fusions.py --quick --seeds 0
    python examples/compare_fusions.py --features FILE --dataset fashioniq DIR    # or: cirr DIR

Without --features, each seed draws MiniFashion and MiniCIRR and pretrains two small encoders, as
fashioniq_repro.py and cirr_repro.py do. FILE is a feature file of CachedEncoder with the images and
texts of train and val (docs/reproduce.md makes one), DIR the dataset's folder, of which only the
annotations are read.

The recipes are the paper's second stage (on drawn data that of those two examples, in half of the
epochs), and the recommended one, with the temperature and learning rate of presets.RECOMMENDED. A
fusion starts from the same weights for both, and is scored after the last epoch: no epoch is chosen
on the reported queries. A fusion without weights is scored as it is. CIRPLANT reads the tokens of
the text, where the features have them.

Differences from the Combiner are paired. Of several drawn seeds, each an experiment of its own, the
95 % interval is Student's over the seeds; of one seed, or one feature file, it is that of
evaluation.compare over the queries, its bounds averaged over the seeds. Parameters and milliseconds
a query (compose, of 16 tokens where these are read, and search in 10,000 images; 64 queries at once,
median) are those at the width of
the features, 640 for drawn data. On the CPU, times are those of one processor thread.

The workdir gets tables.md, results.json and figure.png, and keeps each finished training: the same
command goes on where it stopped.
"""

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cirr_repro
import command_line
import experiment
import fashioniq_repro
import fusion_tables
import torch
from fusion_tables import Cost, Score
from torch import Tensor, nn

import fusecomp as fc
from fusecomp import fusions
from fusecomp.retrieval import search
from fusecomp.training import presets
from fusecomp.types import Tokens

READERS: dict[str, Any] = {"fashioniq": fc.datasets.FashionIQ, "cirr": fc.datasets.CIRR}
DRAWN: dict[str, tuple[ModuleType, str]] = {
    "MiniFashion": (fashioniq_repro, "fashioniq"),
    "MiniCIRR": (cirr_repro, "cirr"),
}
Makers = Mapping[str, Callable[[], nn.Module]]


class Recipe(NamedTuple):
    """How a fusion is trained on frozen features."""

    loss: fc.Loss
    changes: Mapping[str, Any]  # of the settings of the paper's second stage


RECIPES = {
    "paper": Recipe(fc.InfoNCE(temperature=0.01), {}),
    "recommended": Recipe(presets.RECOMMENDED["loss"], {"lr": presets.RECOMMENDED["stage2"].lr}),
}


def own_fusions(dim: int, text_dim: int, token_dim: int, prompt: Tensor) -> Makers:
    """Return a maker of each fusion, by a name that begins with its class."""
    return {
        "Sum": fusions.Sum,
        "WeightedSum": fusions.WeightedSum,
        "WeightedSum, learned": lambda: fusions.WeightedSum(learned=True),
        "Slerp": fusions.Slerp,
        "Direction": lambda: fusions.Direction(prompt),
        "ConvexGate": lambda: fusions.ConvexGate(dim),
        "Concat": lambda: fusions.Concat(dim, text_dim),
        "TIRG": lambda: fusions.TIRG(dim, text_dim),
        "RTIC": lambda: fusions.RTIC(dim, text_dim),
        "ARTEMIS": lambda: fusions.ARTEMIS(dim, text_dim=text_dim),
        "CIRPLANT": lambda: fusions.CIRPLANT(dim, text_dim=token_dim),
        "MUTAN": lambda: fusions.MUTAN(dim, text_dim),
        "Combiner": lambda: fusions.Combiner(dim),
    }


@dataclass(frozen=True)
class Data:
    """Datasets with frozen features, and the settings of the second stage for them."""

    name: str
    train: fc.Dataset
    val: fc.Dataset
    encoder: fc.CachedEncoder
    stage2: fc.StageConfig
    digest: str  # of the feature file

    @property
    def dims(self) -> tuple[int, int, int]:
        """The widths of image, text and token features, the text's where there are no tokens."""
        dim, text_dim = self.encoder.image.features.shape[1], self.encoder.text.features.shape[1]
        if "text" not in self.encoder.token_sides:
            return dim, text_dim, text_dim
        _, tokens = self.encoder.encode_text_tokens(list(self.train.texts())[:1])
        return dim, text_dim, tokens.values.shape[2]

    def fusions(self) -> Makers:
        """Return a maker of each fusion; the mean training text is the prompt of Direction."""
        texts = self.encoder.encode_text(list(self.train.texts()))
        return own_fusions(*self.dims, texts.mean(dim=0))


def drawn_data(name: str, seed: int, args: argparse.Namespace) -> Data:
    """Draw a dataset, pretrain encoders and compute their features, unless these are there."""
    example, kind = DRAWN[name]
    folder = args.workdir / name
    folder.mkdir(parents=True, exist_ok=True)
    own = argparse.Namespace(workdir=folder, seed=seed, quick=args.quick, device="cpu")
    root = example.draw(own)
    encoder = experiment.pretrained_encoder(own, root, example.SMALL)
    train, val = (READERS[kind](root, split, name=name) for split in ("train", "val"))
    path = folder / f"features-{root.name}.safetensors"
    cached = fc.CachedEncoder.build(encoder, train, val, path=path, tokens=["text"])
    stage2 = replace(example.SMALL.stage2, epochs=example.SMALL.stage2.epochs // 2)
    return Data(name, train, val, cached.to(args.device), stage2, digest(path))


def real_data(args: argparse.Namespace) -> Data:
    """Read a feature file and its dataset; the second stage is the paper's."""
    kind, root = args.dataset
    train, val = (READERS[kind](root, split) for split in ("train", "val"))
    stage2 = presets.CVPRW2022["stage2"]
    if args.device == "cpu":
        stage2 = replace(stage2, precision="fp32")
    cached = fc.CachedEncoder.load(args.features).to(args.device)
    return Data(val.name, train, val, cached, stage2, digest(args.features))


def digest(path: Path) -> str:
    """Return a hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def train(data: Data, name: str, recipe: str, seed: int, args: argparse.Namespace) -> Score:
    """Train and score a fusion, unless that is done."""
    torch.manual_seed(seed)
    model = fc.ComposedEncoder(data.encoder, data.fusions()[name]().to(args.device))
    loss = RECIPES[recipe].loss
    given = {"epochs": 2 if args.quick else args.epochs, "batch_size": args.batch_size}
    changes = {name: value for name, value in given.items() if value is not None}
    config = replace(data.stage2, **RECIPES[recipe].changes, **changes, seed=seed)
    made_of = {"fusion": repr(model.fusion), "loss": repr(loss), "features": data.digest}
    settings = made_of | {"config": config.to_dict()}
    seeded = f"seed-{seed}{'-quick' if args.quick else ''}"
    folder = args.workdir / data.name / seeded / recipe / name
    file = folder / "training.json"
    if file.exists() and (kept := json.loads(file.read_text()))["settings"] == settings:
        return Score(fc.Evaluation.load(folder), kept["seconds"])
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    start = clock()
    if any(True for _ in model.parameters()):
        model = fc.Trainer(model, loss=loss, config=config).fit(data.train).model
    score = Score(seconds=clock() - start, evaluation=fc.evaluate(model, data.val))
    folder.mkdir(parents=True, exist_ok=True)
    score.evaluation.save(folder / "evaluation.npz")
    file.write_text(json.dumps({"settings": settings, "seconds": score.seconds}, indent=1))
    return score


def measure(make: Callable[[], nn.Module], dims: tuple[int, int, int], images: int) -> Cost:
    """Count parameters, and time composing 64 queries and searching with them."""
    dim, text_dim, token_dim = dims
    gallery, image, text = torch.randn(images, dim), torch.randn(64, dim), torch.randn(64, text_dim)
    words = Tokens(torch.randn(64, 16, token_dim), torch.ones(64, 16, dtype=torch.bool))
    encoder = fc.CachedEncoder.from_arrays(["image"], image[:1], ["text"], text[:1])
    model = fc.ComposedEncoder(encoder, make()).eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(15):
            start = time.process_time()
            query = model.compose(image, text, text_tokens=words)
            search(query, gallery, k=10, similarity=model.similarity)
            seconds.append(time.process_time() - start)
    parameters = sum(weights.numel() for weights in model.parameters())
    return Cost(parameters, 1000 * statistics.median(seconds) / len(image))


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=DRAWN, default=[*DRAWN], help="default: both")
    parser.add_argument("--features", type=Path, metavar="FILE", help="in place of drawn data")
    parser.add_argument(
        "--dataset", nargs=2, metavar=("KIND", "DIR"), help="of FILE: fashioniq or cirr, and where"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, help="default: those of the second stage")
    parser.add_argument("--batch-size", type=int, help="default: that of the second stage")
    parser.add_argument("--quick", action="store_true", help="two epochs, smaller drawn datasets")
    parser.add_argument("--device", default="cpu", help="to train on")
    parser.add_argument("--workdir", type=Path, default=Path("runs/fusions"))
    args = parser.parse_args()
    if (args.features is None) != (args.dataset is None):
        parser.error("--features and --dataset belong together")
    if args.dataset is not None and args.dataset[0] not in READERS:
        parser.error(f"--dataset {args.dataset[0]}: the kinds are {', '.join(READERS)}")
    return args


def main() -> None:
    """Run the comparison and write its results."""
    args = parse_arguments()
    torch.set_num_threads(1)
    drawn = args.features is None
    results: dict[str, dict[str, dict[str, list[Score]]]] = {}
    for seed in args.seeds:
        for dataset in args.data if drawn else [""]:
            data = drawn_data(dataset, seed, args) if drawn else real_data(args)
            of_recipe = results.setdefault(data.name, {recipe: {} for recipe in RECIPES})
            for recipe, name in ((recipe, name) for recipe in RECIPES for name in data.fusions()):
                score = train(data, name, recipe, seed, args)
                of_recipe[recipe].setdefault(name, []).append(score)
                headline = score.evaluation[score.evaluation.default_metric]
                print(f"{data.name}, seed {seed}, {recipe}, {name}: {headline:.2f}", flush=True)
    dims, images = (640, 640, 640) if drawn else data.dims, 500 if args.quick else 10_000
    makers = own_fusions(*dims, torch.randn(dims[1]))
    costs = {name: measure(make, dims, images) for name, make in makers.items()}
    fusion_tables.write(results, costs, args.workdir, drawn=drawn)


if __name__ == "__main__":
    command_line.command(main)
