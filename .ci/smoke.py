"""What a user's first minutes with an installed fusecomp need; run it outside of the checkout.

    python smoke.py CHECKOUT

It must be the installed package that works, with nothing but torch, numpy and typing-extensions.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import torch

import fusecomp as fc

checkout = Path(sys.argv[1]).resolve()
package = Path(fc.__file__).parent
assert checkout not in package.parents, f"{package} is the checkout's"
assert (package / "py.typed").is_file()
assert not (package.parent / "tests").exists()
for extra in ("PIL", "matplotlib", "pandas", "transformers", "safetensors"):
    assert importlib.util.find_spec(extra) is None, f"{extra} is installed, so this proves nothing"

files = importlib.metadata.files("fusecomp") or []
assert any(file.name == "LICENSE" for file in files)
assert {"fusecomp/report/page.html.j2", "fusecomp/report/published.csv"} <= {*map(str, files)}
assert importlib.metadata.version("fusecomp") == fc.__version__

names = 0
for name in fc.__all__:
    value = getattr(fc, name)
    for inner in getattr(value, "__all__", ()) if type(value) is type(sys) else ():
        getattr(value, inner)
        names += 1
for name in ("types", "encoders", "caching", "fusions", "losses", "retrieval", "training"):
    import_module(f"fusecomp.{name}")

# Made, so that it can be learnt: a target is its reference plus what the text says.
torch.manual_seed(0)
images, words = torch.randn(60, 32), torch.eye(32)[:4] * 6
ids, texts = [f"image {n}" for n in range(60)], ["red", "blue", "long", "short"]
images[30:] = images[:30] + words[torch.arange(30) % 4]
rows = [fc.Triplet(f"query {n}", ids[n], (texts[n % 4],), ids[n + 30]) for n in range(30)]
data = fc.datasets.Triplets(rows, ks=(1, 5))
encoder = fc.CachedEncoder.from_arrays(ids, images, texts, words)
model = fc.ComposedEncoder(encoder, fc.Combiner(dim=32))
config = fc.StageConfig(epochs=20, batch_size=30, lr=1e-3)
model = fc.Trainer(model, loss=fc.InfoNCE(), config=config).fit(data, data).model
score = fc.evaluate(model, data)["recall@5"]
assert score > 90, score

query, gallery = model.encode_query([ids[3]], [texts[3]]), model.encode_gallery(ids)
_, found = fc.retrieval.search(query, gallery, k=5)
assert ids[33] in [ids[position] for position in found[0]]
model.save("model")
fc.ComposedEncoder.load("model", encoder)

for command in (["fusecomp"], [sys.executable, "-m", "fusecomp"]):
    shown = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    assert fc.__version__ in shown.stdout, shown.stdout
print(f"fusecomp {fc.__version__} in {package}: {names} public names, R@5 {score:.1f}: works alone")
