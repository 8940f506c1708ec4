"""A dress rehearsal: a few real steps of every phase, then a table of what the whole run needs.

`fashioniq_repro.py --rehearse` and `cirr_repro.py --rehearse` call `run`. Each phase has the real
encoder, batch size, Combiner and numbers of images and queries. Both stages learn on features that
are drawn at random where they would be looked up, so that not every image is encoded first. The
folder WORKDIR/rehearsal notes what is done; the same command again goes on from there.
"""

import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import experiment
import torch
from forecast import (
    Machine,
    WholeRun,
    beyond,
    misfit,
    needs_of,
    plan,
    predict,
    show,
    steps_of,
    training_images,
)
from pace import Clock, Enough, Lap, Pace, Stopwatch, TimedEncoder, pace

import fusecomp as fc
from fusecomp.caching import PartlyCachedEncoder

# Inputs of a batch of an extraction; the most processes that load images.
_BATCH, _MOST_LOADERS = 128, 16
# What the measurement of a phase gives: laps by the name of a pace, and other numbers.
Found = dict[str, Any]


def run(whole: WholeRun, root: Path, machine: Machine | None = None) -> dict[str, Any]:
    """Measure each phase that is not measured yet, and print what the whole run needs.

    Args:
        whole: the run; the workdir of its arguments is the rehearsal's own.
        root: the folder of the dataset.
        machine: what the run can have; None asks.

    Returns:
        What the file rehearsal.json holds.
    """
    args = whole.args
    missing = find_missing(whole) if args.features is None else {}
    present = [drop_missing(data, missing) for data in (whole.train, whole.val)]
    if args.skip_missing:
        whole = replace(whole, train=present[0], val=present[1])
    phases = Phases(whole, root, present)
    phases.read_weights()
    notes = Notes(whole)
    reasons = {name: notes.take(name, measure) for name, measure in phases.named().items()}
    machine = Machine.here(args.workdir, args.device) if machine is None else machine
    rows = predict(plan(whole), notes.paces())
    content = {
        "settings": notes.settings,
        "measured": notes.measured,
        "work": rows,
        "hours": sum(row.get("hours", 0) for row in rows),
        "needs": needs_of(whole, notes.measured, phases.encoder_bytes()),
        "machine": {name: v if math.isfinite(v) else None for name, v in asdict(machine).items()},
        "missing_images": {name: str(path) for name, path in missing.items()},
    }
    content["problems"] = [
        *(misfit(name, reason, whole) for name, reason in reasons.items() if reason is not None),
        *beyond(content, machine, whole),
    ]
    notes.write(content)
    show(content, {n: p for n, p in notes.paces().items() if n.endswith("resuming")})
    print(f"numbers in {notes.path}; remove it to measure again")
    return content


class Phases:
    """The phases of a run, each short."""

    def __init__(
        self, whole: WholeRun, root: Path, present: Sequence[experiment.Benchmark]
    ) -> None:
        self._whole = whole
        self._args = whole.args
        self._root = root
        # For what opens images.
        self._train, self._val = present
        # As many as the library starts: a CPU keeps half of its cores for the encoder.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        share = 2 if torch.device(self._args.device).type == "cpu" else 1
        self._loaders = max(1, min((cores or 1) // share, _MOST_LOADERS))

    def named(self) -> dict[str, Callable[[], Found]]:
        """Return what measures each phase of the run, in order."""
        found: dict[str, Callable[[], Found]] = {}
        if self._args.data_root is None:
            found["pretraining"] = self._pretraining
        if self._args.features is None:
            found |= {"images": self._images, "texts": self._texts}
        found["evaluation"] = self._evaluation
        measures = {1: self._stage1, 2: self._stage2}
        return found | {f"stage {number}": measures[number] for number in self._whole.stages}

    def read_weights(self) -> None:
        """Make the encoder, so that wrong weights stop here; that of drawn data has a phase."""
        if self._args.data_root is not None:
            self.encoder  # noqa: B018  # it is made here

    def encoder_bytes(self) -> int:
        """Return the size of the encoder's weights."""
        return sum(p.numel() * p.element_size() for p in self.encoder[0].parameters())

    @cached_property
    def encoder(self) -> tuple[Any, int]:
        """The encoder of the run, and the width of its features."""
        small = replace(self._whole.small, pretrain_epochs=2)
        return experiment.make_encoder(self._args, self._whole.val, self._root, small)

    @cached_property
    def _features(self) -> fc.CachedEncoder:
        """The user's features, or as many at random."""
        encoder, dim = self.encoder
        if isinstance(encoder, fc.CachedEncoder):
            return encoder
        generator, names = torch.Generator().manual_seed(0), self._whole.names
        rows = {
            side: torch.randn(len(of_side), dim, generator=generator)
            for side, of_side in names.items()
        }
        cached = fc.CachedEncoder.from_arrays(
            names["images"], rows["images"], names["texts"], rows["texts"], key="rehearsal"
        )
        return cached.to(self._args.device)

    def _pretraining(self) -> Found:
        for weights in self._args.workdir.glob("tinyclip-*.pt"):
            shutil.rmtree(weights)  # of a rehearsal that was stopped
        watch = Stopwatch()
        self.encoder  # noqa: B018  # it is pretrained here
        wall, cpu, _ = watch.lap()
        return {"pretraining": [(wall / 2, cpu / 2, 1)]}

    def _images(self) -> Found:
        # As many batches may be ready before the first is encoded.
        warm_up, wanted = 2 * self._loaders + 1, max(self._args.rehearse, 2 * self._loaders)
        return {"images": self._extraction("image", warm_up, wanted), "together": self._loaders}

    def _texts(self) -> Found:
        return {"texts": self._extraction("text", 1, self._args.rehearse)}

    def _extraction(self, side: str, warm_up: int, wanted: int) -> list[Lap]:
        encoder = TimedEncoder(self.encoder[0], warm_up, wanted)
        few = few_triplets(self._train, (warm_up + wanted) * _BATCH)
        with suppress(Enough):
            PartlyCachedEncoder.build(encoder, few, sides=[side], batch_size=_BATCH)
        return encoder.steady()

    def _evaluation(self) -> Found:
        model, laps = fc.ComposedEncoder(self._features, fc.Sum()), []
        for _ in range(3):
            watch = Stopwatch()
            fc.evaluate(model, self._whole.val)
            laps.append(watch.lap())
        return {"evaluation": laps[1:]}

    def _stage1(self) -> Found:
        encoder = self.encoder[0]
        val = few_triplets(self._val, 64)
        if self._whole.live_images:
            return self._stage(1, encoder, fc.Sum(), self._train, val, self._loaders)
        looked_up = LooksUpImages(encoder, {"image": self._features.image})
        return self._stage(1, looked_up, fc.Sum(), self._whole.train, val)

    def _stage2(self) -> Found:
        torch.manual_seed(self._args.seed)
        fusion = fc.Combiner(self.encoder[1]).to(self._args.device)
        return self._stage(2, self._features, fusion, self._whole.train, self._whole.val)

    def _stage(
        self,
        number: int,
        encoder: fc.Encoder,
        fusion: fc.Fusion,
        train: fc.Dataset,
        val: fc.Dataset,
        loaders: int = 0,
    ) -> Found:
        """Train in two runs, of which the second resumes the first."""
        config, wanted = self._whole.stages[number], self._args.rehearse
        in_epoch = steps_of(len(self._whole.train), config)
        warm_up = min(2 * loaders, max(0, in_epoch - 2))
        steps = min(in_epoch, 1 + warm_up + max(math.ceil(wanted / 3), loaders))
        few = few_triplets(train, steps * config.batch_size)
        # The first step of an epoch is measured in a trainer's second one.
        epochs = max(2, math.ceil(wanted / max(1, steps - 1 - warm_up)) - 1)
        folder = self._args.workdir / f"stage{number}"
        for last_epoch in (epochs, epochs + 1):
            clock = Clock(warm_up)
            trainer = fc.Trainer(
                fc.ComposedEncoder(encoder, fusion),
                loss=fc.InfoNCE(temperature=0.01),
                config=replace(config, epochs=last_epoch),
                workdir=folder,
                callbacks=[clock],
            )
            trainer.fit(few, val)
        laps = {f"stage {number} {n}": of for n, of in (clock.laps | clock.steps()).items()}
        best = max(path.stat().st_size for path in (folder / "best").glob("*.pt"))
        last = (folder / "last.pt").stat().st_size
        return {**laps, "last": last, "best": best, "together": max(1, loaders)}


class LooksUpImages(PartlyCachedEncoder):
    """An encoder whose images are looked up and whose text side can learn."""

    @property
    def towers(self) -> dict[str, list[str]]:
        """The names of the parameters of each side."""
        towers: Mapping[str, Sequence[str]] = self.encoder.towers  # type: ignore[attr-defined]
        return {side: [f"encoder.{name}" for name in names] for side, names in towers.items()}


def few_triplets(dataset: fc.Dataset, number: int) -> fc.datasets.Triplets:
    """Return the first triplets, in one task without groups."""
    few = [replace(row, group=None) for row in dataset.triplets()[:number]]
    names = dict.fromkeys(image_id for row in few for image_id in row.image_ids)
    return fc.datasets.Triplets(few, {name: dataset.path(name) for name in names})


def find_missing(whole: WholeRun) -> dict[str, Path]:
    """Return the files of images that the run opens and that are not there, by id."""
    paths = {image_id: whole.train.path(image_id) for image_id in training_images(whole.train)}
    for data in (whole.val, *whole.ranked):
        paths.update((image_id, data.path(image_id)) for image_id in data.image_ids)
    return {image_id: path for image_id, path in paths.items() if not path.is_file()}


def drop_missing(data: experiment.Benchmark, missing: Mapping[str, Path]) -> experiment.Benchmark:
    """Return a dataset without its missing images; FileNotFoundError if that leaves nothing."""
    try:
        rest: Any = fc.datasets.drop_images(data, list(missing))
    except ValueError as error:
        path = next(iter(missing.values()))
        raise FileNotFoundError(
            f"no triplet of {data.split} has its images: {len(missing):,} are missing, the first: "
            f"{path}; examples/stand_ins.py draws an image under every name"
        ) from error
    return rest  # type: ignore[no-any-return]  # it acts as one


class Notes:
    """The file with all that is measured, by phase; other settings begin anew."""

    def __init__(self, whole: WholeRun) -> None:
        args = whole.args
        self.path: Path = args.workdir / "rehearsal.json"
        self._device = torch.device(args.device)
        # The others change no pace.
        free = ("start", "workdir", "epochs", "skip_missing")
        self.settings = {n: str(v) for n, v in vars(args).items() if n not in free}
        self.measured: dict[str, Found] = {}
        if self.path.exists():
            found: dict[str, Any] = {}
            with suppress(ValueError):
                found = json.loads(self.path.read_text())
            if found.get("settings") == self.settings:
                self.measured = found["measured"]
                return
            state = "has other settings" if found else "is broken"
            print(f"{self.path} {state}: all phases are rehearsed anew")
        for number in (1, 2):
            shutil.rmtree(args.workdir / f"stage{number}", ignore_errors=True)
        self.write({"settings": self.settings, "measured": {}})

    def take(self, phase: str, measure: Callable[[], Found]) -> str | None:
        """Measure a phase and note it, unless it is noted; return why it does not fit, if so."""
        if phase in self.measured:
            print(f"{phase}: rehearsed before", flush=True)
            return None
        print(f"{phase}: a few steps", flush=True)
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        try:
            found = measure()
        except (MemoryError, OSError, RuntimeError, ValueError) as error:
            # The text alone, as the error would hold on to the memory.
            return why_unfit(error)
        found["peak_memory"] = peak_memory()
        if on_gpu:
            found["peak_gpu_memory"] = torch.cuda.max_memory_reserved(self._device)
        self.measured[phase] = found
        self.write({"settings": self.settings, "measured": self.measured})
        shutil.rmtree(self.path.parent / phase.replace(" ", ""), ignore_errors=True)
        return None

    def paces(self) -> dict[str, Pace]:
        """Return the pace of everything measured, by name."""
        return {
            name: pace(laps, found.get("together", 1))
            for found in self.measured.values()
            for name, laps in found.items()
            if isinstance(laps, list) and laps
        }

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the file beside, then rename it."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(self.path)


def why_unfit(error: Exception) -> str:
    """Return why settings or machine do not carry a phase; raise any other error."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    small = isinstance(error, MemoryError | torch.OutOfMemoryError) or "t allocate" in str(error)
    if not (full or small or isinstance(error, ValueError)):
        raise error
    text = str(error).partition("\n")[0]
    return f"out of memory: {text}" if small else text


def peak_memory() -> int:
    """Return the most memory that this process has had so far, in bytes; 0 where none tells."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
