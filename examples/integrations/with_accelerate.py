"""A training loop that accelerate launches, with the weights of ``Trainer.fit``.

    python examples/integrations/with_accelerate.py --folder runs/accelerate
    accelerate launch --num_processes 2 examples/integrations/with_accelerate.py --folder runs/two

Accelerate picks the device, prints and saves. Leave out ``accelerator.prepare`` and ``backward``:
the trainer's step gathers the batch of all processes and synchronises gradients by itself. Set the
precision in ``StageConfig``. The same command again goes on where the last one ended.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator

import fusecomp as fc

CONFIG = fc.StageConfig(epochs=3, batch_size=16, lr=1e-3, lr_schedule="cosine")


class Progress:
    """The epochs that are done; saved with the weights."""

    def __init__(self, trainer: fc.Trainer) -> None:
        self.trainer, self.epochs = trainer, 0

    def state_dict(self) -> dict[str, int]:
        return {"epochs": self.epochs, "steps": self.trainer.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epochs, self.trainer.steps = state["epochs"], state["steps"]


def parts() -> tuple[fc.datasets.Triplets, fc.ComposedEncoder, fc.InfoNCE]:
    """Return a dataset, a model and a loss: 60 random images here, yours in their place."""
    ids, texts = [f"image {n}" for n in range(60)], ["is blue", "is red", "has sleeves"]
    rows = [fc.Triplet(str(n), ids[n], (texts[n % 3],), ids[(n + 5) % 60]) for n in range(60)]
    torch.manual_seed(0)
    encoder = fc.CachedEncoder.from_arrays(ids, torch.randn(60, 16), texts, torch.randn(3, 16))
    model = fc.ComposedEncoder(encoder, fc.Combiner(dim=16, dropout=0.0))
    return fc.datasets.Triplets(rows), model, fc.InfoNCE(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/accelerate"))
    parser.add_argument("--stop-after", type=int, default=CONFIG.epochs, help="epochs of this call")
    options = parser.parse_args()
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    train, model, loss = parts()
    trainer = fc.Trainer(model.to(accelerator.device), loss=loss, config=CONFIG)
    progress = Progress(trainer)
    accelerator.register_for_checkpointing(model, loss, trainer.optimizer, progress)
    if options.folder.exists():
        accelerator.load_state(str(options.folder))
    encoder = trainer.prepare(train)
    for epoch in range(progress.epochs, min(CONFIG.epochs, options.stop_after)):
        for batch in fc.training.batches(train, encoder, CONFIG, epoch):
            value = trainer.step(batch)
        accelerator.print(f"epoch {epoch + 1}: loss {value.item():.4f}")
        progress.epochs = epoch + 1
        accelerator.save_state(str(options.folder))
    accelerator.end_training()


if __name__ == "__main__":
    main()
