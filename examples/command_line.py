"""Command lines of the examples: flags, their checks, and errors in one line."""

import argparse
import io
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import two_threads  # noqa: F401, before torch

# isort: split
import backbones
import torch

from fusecomp import distributed


def make_parser(doc: str | None, benchmark: str) -> argparse.ArgumentParser:
    """Make a parser with the flags that the examples share."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data-root", type=Path, help=f"{benchmark}'s folder; default: draw a small one"
    )
    data.add_argument("--features", type=Path, help="a feature file of CachedEncoder")
    data.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out the queries and images that need a missing or broken image",
    )
    backbones.add_arguments(parser)
    train = parser.add_argument_group("training (defaults fit the dataset)")
    train.add_argument(
        "--epochs", type=int, nargs=2, metavar=("STAGE1", "STAGE2"), help="of each stage"
    )
    train.add_argument(
        "--batch-size", type=int, nargs=2, metavar=("STAGE1", "STAGE2"), help="triplets a step"
    )
    train.add_argument(
        "--lr", type=float, nargs=2, metavar=("STAGE1", "STAGE2"), help="learning rates"
    )
    train.add_argument(
        "--micro-batch-size",
        type=int,
        metavar="ROWS",
        help="triplets that stage 1 encodes at once: less memory, the same results",
    )
    train.add_argument(
        "--precision", default="fp32", choices=("fp32", "bf16", "fp16"), help="fp16 needs a GPU"
    )
    train.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train.add_argument("--seed", type=int, default=0, help="of data and training")
    train.add_argument("--quick", action="store_true", help="few epochs on a smaller drawn dataset")
    parser.add_argument(
        "--rehearse",
        type=int,
        nargs="?",
        const=6,
        metavar="STEPS",
        help="only make a few steps of every phase (default: 6), in WORKDIR/rehearsal, and print "
        "what the whole run needs: hours, memory, disk, missing images, what does not fit",
    )
    workdir = Path("runs") / benchmark.lower()
    parser.add_argument("--workdir", type=Path, default=workdir, help="the folder for results")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse and check the command line; `start` is the time of the call."""
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
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: torch sees no GPU here")
    if args.rehearse is not None:
        if args.rehearse < 2:
            parser.error(f"--rehearse {args.rehearse}: a pace needs at least 2 steps")
        if distributed.get_world_size() > 1:
            parser.error("--rehearse runs on one process: start it without torchrun")
        args.workdir = args.workdir / "rehearsal"
    args.start = time.monotonic()
    args.workdir.mkdir(parents=True, exist_ok=True)
    return args


def command(main: Callable[[], None]) -> None:
    """Run an example, alone or under torchrun; an error that the user can mend prints one line.

    Of many processes only the first prints.
    """
    distributed.join()
    try:
        with redirect_stdout(sys.stdout if distributed.get_rank() == 0 else io.StringIO()):
            main()
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from its last checkpoint, if there is one")
    except (OSError, ValueError, ImportError) as error:
        if distributed.get_rank() > 0:
            time.sleep(3)  # if the first has failed as well, torchrun ends the others meanwhile
        sys.exit(f"error: {error}")
