"""Prediction of a whole run from the pace of its parts, which `rehearsal.py` measures."""

import argparse
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import experiment
import torch
from pace import Pace

import fusecomp as fc
from fusecomp.report import Table

LONG_HOURS = 72
# By its name in the results: what it is called, and the field of `Machine` that limits it.
NEEDS = {"memory": "memory", "gpu_memory": "memory of the GPU", "disk": "disk for checkpoints"}


@dataclass(frozen=True)
class Machine:
    """The resources that a run can have, in bytes."""

    memory: float
    disk: float
    gpu_memory: float = math.inf

    @classmethod
    def here(cls, folder: Path, device: str) -> "Machine":
        """Ask this machine."""
        memory = math.inf
        if hasattr(os, "sysconf"):  # not on Windows
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = Path("/sys/fs/cgroup/memory.max")  # of a container
        if limit.is_file() and limit.read_text().strip().isdigit():
            memory = min(memory, int(limit.read_text()))
        gpu = math.inf
        if torch.device(device).type == "cuda":
            gpu = torch.cuda.get_device_properties(device).total_memory
        return cls(memory, shutil.disk_usage(folder).free, gpu)


@dataclass(frozen=True)
class WholeRun:
    """A run of an example; ``ranked`` are the datasets whose files it writes for a server."""

    args: argparse.Namespace
    train: experiment.Benchmark
    val: experiment.Benchmark
    small: experiment.Small
    ranked: Sequence[fc.Dataset] = ()

    @property
    def stages(self) -> dict[int, fc.StageConfig]:
        """The settings of the stages that it trains, by number."""
        if self.args.combiner_checkpoint is not None:
            return {}
        stages = enumerate(experiment.stages(self.args, self.small), 1)
        return {number: config for number, config in stages if config is not None}

    @property
    def names(self) -> dict[str, list[str]]:
        """The images and texts of training triplets and validation, each once."""
        images = [*training_images(self.train), *self.val.image_ids]
        texts = [*self.train.texts(), *self.val.texts()]
        return {"images": list(dict.fromkeys(images)), "texts": list(dict.fromkeys(texts))}

    @property
    def live_images(self) -> bool:
        """Whether stage 1 opens images in each of its steps, as their encoder learns."""
        return 1 in self.stages and self.stages[1].trainable == "both"


def training_images(dataset: fc.Dataset) -> Sequence[str]:
    """Return the images that triplets name, where the dataset tells them."""
    images: Sequence[str] = getattr(dataset, "triplet_image_ids", dataset.image_ids)
    return images


def steps_of(triplets: int, config: fc.StageConfig) -> int:
    """Return the steps of an epoch."""
    steps = triplets / config.batch_size
    return max(1, math.floor(steps) if config.drop_last else math.ceil(steps))


class Work(NamedTuple):
    """A part of the whole run: ``times`` times what ``pace`` names."""

    phase: str
    does: str
    times: int
    pace: str


def plan(whole: WholeRun) -> list[Work]:
    """List all that the whole run does."""
    works = []
    if whole.args.data_root is None:
        epochs = 2 if whole.args.quick else whole.small.pretrain_epochs
        works.append(Work("pretraining", f"{epochs} epochs", epochs, "pretraining"))
    if whole.args.features is None:
        for side, counts in encodings(whole).items():
            passes = f" in {len(counts)} passes" if len(counts) > 1 else ""
            works.append(Work("extraction", f"{sum(counts):,} {side}{passes}", sum(counts), side))
    # The plain encoder has a stage 2 of its own.
    times = {1: 1, 2: len(whole.stages)}
    for number, config in whole.stages.items():
        phase, epochs = f"stage {number}", times[number] * config.epochs
        steps, size = steps_of(len(whole.train), config), f"steps of {config.batch_size:,}"
        works += [
            Work(phase, f"{epochs * (steps - 1):,} {size}", epochs * (steps - 1), f"{phase} step"),
            Work(phase, f"{epochs:,} first {size} of an epoch", epochs, f"{phase} first step"),
            Work(phase, f"{epochs:,} checkpoints", epochs, f"{phase} saving"),
        ]
        for pace, count in validation(whole, number).items():
            does = f"{epochs:,} validations" + (f" x {count:,} {pace}" if count > 1 else "")
            works.append(Work(phase, does, epochs * count, pace))
    rows = {0: 2, 1: 4, 2: 6}[len(whole.stages)]
    return [*works, Work("evaluation", f"{rows} rows of the table", rows, "evaluation")]


def encodings(whole: WholeRun) -> dict[str, list[int]]:
    """Return how many images and texts each pass of the run encodes, in the order of the run."""
    of_val = {"images": len(whole.val.image_ids), "texts": len(set(whole.val.texts()))}
    of_all = {side: len(names) for side, names in whole.names.items()}
    passes = [of_all if 2 in whole.stages else of_val]
    if 1 in whole.stages:  # what it tunes is encoded anew behind it
        passes.append(of_all if whole.live_images else {"texts": of_all["texts"]})
    passes += [
        {"images": len(data.image_ids), "texts": len(set(data.texts()))} for data in whole.ranked
    ]
    return {side: [each[side] for each in passes if side in each] for side in of_val}


def validation(whole: WholeRun, number: int) -> dict[str, int]:
    """Return what one validation of a stage takes, by the name of a pace."""
    if number == 2:
        return {"stage 2 validation": 1}
    encoded = {"texts": len(set(whole.val.texts())), "evaluation": 1}
    return encoded | ({"images": len(whole.val.image_ids)} if whole.live_images else {})


def predict(works: Iterable[Work], paces: Mapping[str, Pace]) -> list[dict[str, Any]]:
    """Return each work with its pace and hours, without them where nothing was measured."""
    rows = []
    for work in works:
        row = work._asdict()
        if work.pace in paces:
            found = paces[work.pace]
            hours = {"hours": found.seconds, "cpu_hours": found.cpu_seconds}
            row |= found._asdict() | {name: work.times * s / 3600 for name, s in hours.items()}
        rows.append(row)
    return rows


def needs_of(
    whole: WholeRun, measured: Mapping[str, Mapping[str, Any]], encoder_bytes: int
) -> dict[str, float]:
    """Return what the whole run needs beside time, in bytes."""
    known = [n for n in whole.stages if f"stage {n}" in measured]
    trainings = [*known, *([2] if {1, 2} <= {*known} else [])]
    sizes = {n: (measured[f"stage {n}"]["last"], measured[f"stage {n}"]["best"]) for n in known}
    # The next file of each kind is written before the one before is gone.
    disk = sum(sizes[n][0] + 2 * sizes[n][1] for n in trainings)
    disk += max((last for last, _ in sizes.values()), default=0)
    if 2 in sizes:  # the folder with the model
        disk += sizes[2][1] + encoder_bytes
    peaks = {
        kind: max((found.get(f"peak_{kind}", 0) for found in measured.values()), default=0)
        for kind in ("memory", "gpu_memory")
    }
    return {**peaks, "disk": disk}


class Problem(NamedTuple):
    """An obstacle to the whole run, and the way around it."""

    what: str
    way_out: str


def beyond(content: Mapping[str, Any], machine: Machine, whole: WholeRun) -> Iterator[Problem]:
    """Yield what the machine or the data cannot give."""
    needs, missing, measured = content["needs"], content["missing_images"], content["measured"]
    if missing and not whole.args.skip_missing:
        first = ", ".join(list(missing.values())[:5])
        yield Problem(
            f"{len(missing):,} images are missing, the first: {first}",
            "put them there (rehearsal.json lists all), or --skip-missing leaves out the queries "
            "and images concerned",
        )
    for kind in ("memory", "gpu_memory"):
        limit = vars(machine)[kind]
        if needs[kind] > limit:
            phase = max(measured, key=lambda name: measured[name].get(f"peak_{kind}", 0))
            took = f"{phase} takes {gb(needs[kind])} of {NEEDS[kind]}, there are {gb(limit)}"
            yield Problem(took, less_memory(phase, whole))
    if needs["disk"] > machine.disk:
        yield Problem(
            f"the checkpoints take {gb(needs['disk'])}, {gb(machine.disk)} are free",
            f"free {gb(needs['disk'] - machine.disk)}, or give --workdir on another disk",
        )
    if content["hours"] > LONG_HOURS and torch.device(whole.args.device).type == "cpu":
        yield Problem(
            f"{content['hours']:,.0f} hours on a CPU",
            "--device cuda, or features that were extracted on a GPU: --features",
        )


def misfit(phase: str, reason: str, whole: WholeRun) -> Problem:
    """Return the way out for a phase that could not be rehearsed."""
    way = "change what it names"
    if reason.startswith("out of memory"):
        way = less_memory(phase, whole)
    elif "No space left" in reason:
        way = "free disk space, or give --workdir on another disk"
    elif "precision" in reason:
        way = "--precision bf16, or fp32"
    elif "make no batch" in reason:
        sizes = {n: min(len(whole.train), config.batch_size) for n, config in whole.stages.items()}
        way = f"--batch-size {sizes.get(1, sizes[2])} {sizes[2]}"
    return Problem(f"{phase}: {reason}", way)


def less_memory(phase: str, whole: WholeRun) -> str:
    """Return the flags with which a phase takes less memory."""
    stages = whole.stages
    if phase == "stage 1":
        size = stages[1].micro_batch_size or stages[1].batch_size
        return f"--micro-batch-size {max(1, size // 2)}, which computes the same in parts"
    if phase == "stage 2":
        first = stages.get(1, stages[2]).batch_size
        half = f"--batch-size {first} {max(2, stages[2].batch_size // 2)}, another training"
        return f"--precision bf16, or {half}" if stages[2].precision == "fp32" else half
    return "a machine with more, or features that were extracted on one: --features"


def gb(size: float) -> str:
    """Return bytes in GB."""
    return f"{size / 1e9:.3g} GB"


def span(seconds: float) -> str:
    """Return a time in a fitting unit."""
    units = ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"))
    size, unit = next((unit for unit in units if seconds >= unit[0]), units[-1])
    return f"{seconds / size:.3g} {unit}"


def show(content: Mapping[str, Any], resuming: Mapping[str, Pace]) -> None:
    """Print the table and what is in the way."""
    rows = []
    for row in content["work"]:
        cells = ["not measured", ""]
        if "hours" in row:
            cells = [f"{span(row['seconds'])} ({row['measured']})", span(3600 * row["hours"])]
        rows.append([row["phase"], row["does"], *cells])
    rows.append(["all", "", "", span(3600 * content["hours"])])
    needs, machine = content["needs"], content["machine"]
    notes = [
        "each: one image, text, step, ...; the median of (so many) behind a warm-up",
        "not in it: the check of all images by --skip-missing, the report at the end",
        *(
            f"{name}: {gb(needs[kind])}" + (f" of {gb(machine[kind])}" if machine[kind] else "")
            for kind, name in NEEDS.items()
            if needs[kind]
        ),
        *(f"{name}: {span(pace.seconds)}" for name, pace in resuming.items()),
    ]
    head = ("phase", "what the whole run does", "each", "in all")
    print(f"\n{Table(head=head, rows=rows, notes=notes, content={})}\n")
    for what, way_out in content["problems"]:
        print(f"in the way: {what}\n   way out: {way_out}")
    if not content["problems"]:
        print("nothing is in the way")
