"""Reading one's own table: ``TripletTable`` against ``csv.DictReader`` on the same file.

    OMP_NUM_THREADS=1 python examples/benchmarks/table.py [--rows 300000] [--images 10000]

A CSV file of drawn texts over a folder of empty image files. ``csv.DictReader`` makes a dict of
each line and checks nothing. ``TripletTable`` checks each value, finds the image of each id and
makes the triplets; from a DataFrame it takes the same rows from memory. All in turns, the least
CPU time of each.
"""

import argparse
import csv
import random
import tempfile
from pathlib import Path

from measure import best, print_table

from fusecomp.datasets import TripletTable

WORDS = ["is", "has", "blue", "red", "striped", "longer", "sleeves", "dots", "plain", "with"]


def main() -> None:
    """Draw the table, read it in each way, print the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = draw(Path(name), options.rows, options.images)
        images = path.parent / "images"
        ways = {
            "`csv.DictReader`": lambda: read(path),
            "`TripletTable`, CSV": lambda: TripletTable(path, images),
        }
        try:
            from pandas import DataFrame
        except ImportError:
            print("without pandas, which the way by a DataFrame needs")
        else:
            frame = DataFrame(read(path))
            ways["`TripletTable`, DataFrame"] = lambda: TripletTable(frame, images)
        costs = best(ways, options.rounds)
    least = costs["`csv.DictReader`"].cpu
    rows = [(way, f"{cost.cpu:.2f}", f"{cost.cpu / least:.1f}") for way, cost in costs.items()]
    print_table((f"{options.rows:,} rows", "s", "ratio"), rows)


def draw(folder: Path, rows: int, images: int) -> Path:
    """Write the table and its images; return the path of the table."""
    rng = random.Random(0)
    (folder / "images").mkdir()
    ids = [f"{number:06d}" for number in range(images)]
    for image_id in ids:
        (folder / "images" / f"{image_id}.jpg").touch()
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["reference", "text", "target", "split"])
        for number in range(rows):
            reference, target = rng.sample(ids, 2)
            text = " ".join([*rng.choices(WORDS, k=6), str(number)])
            writer.writerow([reference, text, target, "train"])
    return folder / "table.csv"


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows as dicts."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
