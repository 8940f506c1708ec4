"""One model under every protocol of FashionIQ: what each option is worth.

    python examples/fashioniq_repro.py --workdir runs/fashioniq      # the run to look at
    python examples/protocols.py --workdir runs/fashioniq

Each row changes one option of the default (gallery original, reference kept, captions both), or
leaves out every twentieth image as if it were missing; prints Markdown.
"""

import warnings

import command_line
import finished_run

import fusecomp as fc
from fusecomp.evaluation import ProtocolWarning
from fusecomp.report import ablation_table


def main() -> None:
    """Print the table of each model."""
    args = finished_run.parse_arguments(__doc__)
    root, models = finished_run.open_run(args.workdir, args.seed)
    default = finished_run.validation(root)
    datasets = {
        "default": default,
        "gallery val": finished_run.validation(root, gallery="val"),
        "reference excluded": finished_run.validation(root, exclude_reference=True),
        **{
            f"captions {captions}": finished_run.validation(root, captions=captions)
            for captions in ("reversed", "averaged", "alone", "both-orders")
        },
        "every 20th image missing": fc.datasets.drop_images(default, default.image_ids[::20]),
    }
    for name in ("plain, Sum", "tuned, Combiner"):
        # Each text is encoded once for all rows.
        cached = fc.CachedEncoder.build(models[name].encoder, *datasets.values())
        model = fc.ComposedEncoder(cached, models[name].fusion)
        rows = {option: fc.evaluate(model, data) for option, data in datasets.items()}
        with warnings.catch_warnings():
            # To show what differs is the point here.
            warnings.simplefilter("ignore", ProtocolWarning)
            print(f"{name}\n\n{ablation_table(rows)}\n")


if __name__ == "__main__":
    command_line.command(main)
