"""The predictions of `--rehearse` against whole phases, one after the other.

    export PYTHONPATH=examples
    python examples/benchmarks/rehearsed.py texts --data-root DIR --backbone NAME --weights FILE
    python examples/benchmarks/rehearsed.py "stage 2" --data-root DIR --features FILE --epochs 1 1

The flags are those of fashioniq_repro.py. The whole of an extraction is that of the validation
split. CPU seconds are those of this process; unlike the wall's they hardly depend on what else the
machine does.
"""

import shutil

import command_line
import fashioniq_repro
from forecast import WholeRun, plan, predict
from measure import print_table
from pace import Stopwatch, pace
from rehearsal import Phases

import fusecomp as fc
from fusecomp.caching import PartlyCachedEncoder


def run_whole(whole: WholeRun, phases: Phases, phase: str) -> None:
    """Run all of a phase."""
    encoder, dim = phases.encoder
    if phase != "stage 2":
        PartlyCachedEncoder.build(encoder, whole.val, sides=[phase.removesuffix("s")])
        return
    folder = whole.args.workdir / "whole"
    model = fc.ComposedEncoder(encoder, fc.Combiner(dim).to(whole.args.device))
    loss = fc.InfoNCE(temperature=0.01)
    fc.Trainer(model, loss=loss, config=whole.stages[2], workdir=folder).fit(whole.train, whole.val)


def main() -> None:
    """Print the table."""
    parser = command_line.make_parser(__doc__, "FashionIQ")
    parser.add_argument("phase", choices=("images", "texts", "stage 2"))
    parser.add_argument("--categories", nargs="+", default=fashioniq_repro.CATEGORIES)
    parser.set_defaults(rehearse=6)
    args = command_line.parse(parser)
    train = fc.datasets.FashionIQ(args.data_root, "train", args.categories, gallery="val")
    val = fc.datasets.FashionIQ(args.data_root, "val", args.categories)
    whole = WholeRun(args, train, val, fashioniq_repro.SMALL)
    for name in ("stage2", "whole"):
        shutil.rmtree(args.workdir / name, ignore_errors=True)
    phases = Phases(whole, args.data_root, (train, val))
    found = phases.named()[args.phase]()
    paces = {
        n: pace(laps, found.get("together", 1)) for n, laps in found.items() if type(laps) is list
    }
    counts = {"images": len(val.image_ids), "texts": len(val.texts())}
    works = [work for work in plan(whole) if work.phase == args.phase]
    predicted = [
        3600 * sum(row[kind] for row in predict(works, paces)) for kind in ("hours", "cpu_hours")
    ]
    if args.phase in counts:
        predicted = [counts[args.phase] * seconds for seconds in paces[args.phase][:2]]
    watch = Stopwatch()
    run_whole(whole, phases, args.phase)
    rows = [
        [name, f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}"]
        for name, before, after in zip(("wall", "CPU"), predicted, watch.lap(), strict=False)
    ]
    print_table([args.phase, "predicted s", "measured s", "ratio"], rows)


if __name__ == "__main__":
    command_line.command(main)
