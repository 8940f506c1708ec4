"""The command ``fusecomp``."""

import argparse
import io
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from fusecomp import __version__
from fusecomp.caching import CachedEncoder
from fusecomp.datasets import CIRCO, CIRR, FashionIQ, TripletTable, VerifyReport
from fusecomp.evaluation import Comparison, Evaluation, compare

__all__ = ["main"]

_DATASETS: dict[str, type[FashionIQ | CIRR | CIRCO]] = {
    "fashioniq": FashionIQ,
    "cirr": CIRR,
    "circo": CIRCO,
}
_OK, _FINDINGS, _USAGE, _INTERRUPTED = 0, 1, 2, 130

_VERIFY = """\
Check the files of a dataset: annotations against what is published, images that are missing,
empty, cut off, no images at all, or equal byte for byte; or a feature file by its checksums.

Exit status: 0 if there is no fault (notes are fine), 1 if there are faults, 2 if the dataset or
an annotation file cannot be read, or the command is wrong."""

_COMPARE = """\
Compare two evaluations of the same queries, as Evaluation.save writes them: both scores, their
difference with a 95 % interval (paired bootstrap), and the queries that changed most. Where the
protocols differ, it says in what.

Exit status: 0 if they were compared, 2 if one cannot be read, they are not of the same queries,
or the command is wrong."""

_VERIFY_EXAMPLES = """\
  fusecomp verify fashioniq fashionIQ_dataset
  fusecomp verify cirr cirr_dataset --decode --num-workers 8
  fusecomp verify circo CIRCO
  fusecomp verify table mine.csv --images images --split val --json > report.json
  fusecomp verify features features.safetensors"""

_COMPARE_EXAMPLES = """\
  fusecomp compare runs/sum runs/combiner
  fusecomp compare runs/sum runs/combiner/evaluation.npz --seed 1 --json > comparison.json"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: the words after ``fusecomp``; None takes them from the command line.
    """
    options = _parser().parse_args(arguments)
    # A file name that the terminal cannot show must not end the command.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (OSError, ValueError, ImportError) as error:
        sys.stderr.write(f"fusecomp: {error}\n")
        return _USAGE


def _parser() -> argparse.ArgumentParser:
    about = _texts("Composed image retrieval.", f"{_VERIFY_EXAMPLES}\n{_COMPARE_EXAMPLES}")
    parser = argparse.ArgumentParser(prog="fusecomp", **about)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_verify(commands)
    _add_compare(commands)
    return parser


def _texts(description: str, examples: str) -> dict[str, Any]:
    return {
        "description": description,
        "epilog": f"examples:\n{examples}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = _texts(_VERIFY, _VERIFY_EXAMPLES)
    command = commands.add_parser("verify", help="check the files of a dataset", **about)
    kinds = command.add_subparsers(required=True, metavar="DATASET", dest="dataset")
    for name, dataset in _DATASETS.items():
        layout = "its published" if dataset is CIRCO else "CLIP4Cir's"
        kind = kinds.add_parser(name, help=f"{dataset.__name__}, in {layout} layout")
        kind.add_argument("root", metavar="DIR", help="the folder of the dataset")
        _add_verify_options(kind)
    table = kinds.add_parser("table", help="your own triplets: a .csv or .jsonl file")
    table.add_argument("root", metavar="FILE", help="the table")
    table.add_argument("--images", metavar="DIR", required=True, help="the folder of its images")
    table.add_argument("--split", help="check the rows of this split only")
    _add_verify_options(table)
    features = kinds.add_parser("features", help="a feature file of CachedEncoder")
    features.add_argument("path", metavar="FILE", help="what CachedEncoder.build or save wrote")
    features.set_defaults(run=_verify_features)


def _add_verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    parser.add_argument("--decode", action="store_true", help="read every pixel too; slower")
    threads = "threads (default: by the cores)"
    parser.add_argument("--num-workers", type=int, metavar="N", help=threads)
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    settings = {"decode": options.decode, "num_workers": options.num_workers}
    if options.dataset == "table":
        report = TripletTable.verify(options.root, options.images, options.split, **settings)
    else:
        report = _DATASETS[options.dataset].verify(options.root, **settings)
    _print(report, options.json)
    return _OK if report.ok else _FINDINGS


def _print(report: VerifyReport | Comparison, as_json: bool) -> None:
    text = json.dumps(report.to_dict(), indent=2) if as_json else str(report)
    sys.stdout.write(f"{text}\n")


def _verify_features(options: argparse.Namespace) -> int:
    try:
        cached = CachedEncoder.load(options.path, check=True)
    except ValueError as error:
        sys.stdout.write(f"{error}\n")
        return _FINDINGS
    images, texts = (table.features.shape for table in (cached.image, cached.text))
    sys.stdout.write(
        f"{options.path}: {images[0]:,} images of width {images[1]}, {texts[0]:,} texts of width "
        f"{texts[1]}, {len(cached.skipped):,} skipped; all as it was written\n"
    )
    return _OK


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = _texts(_COMPARE, _COMPARE_EXAMPLES)
    title = "compare two evaluations of the same queries"
    command = commands.add_parser("compare", help=title, **about)
    about_run = "a file of Evaluation.save, or the folder of its evaluation.npz"
    for name in ("run_a", "run_b"):
        command.add_argument(name, metavar=name.upper(), help=about_run)
    command.add_argument("--json", action="store_true", help="the whole comparison as JSON")
    command.add_argument("--seed", type=int, default=0, help="of the resamples (default: 0)")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    names = (options.run_a, options.run_b)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        comparison = compare(*map(Evaluation.load, names), names=names, seed=options.seed)
    for warning in caught:
        sys.stderr.write(f"fusecomp: warning: {warning.message}\n")
    _print(comparison, options.json)
    return _OK


if __name__ == "__main__":
    sys.exit(main())
