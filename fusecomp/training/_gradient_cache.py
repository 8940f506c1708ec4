from collections.abc import Callable

import torch
from torch import Tensor

from fusecomp._core.tokens import cat_padded

# Features of rows by name: images, texts and targets, and what else the fusion names.
Features = dict[str, Tensor]


class GradientCache:
    """The features of a large batch, whose encoders' activations are never held at once.

    They are computed by parts without a graph; ``features`` are leaves, from which fusion and loss
    go on. After their backward pass, ``backward`` encodes each part again, with the same random
    numbers, and sends the features' gradients down. The result is the gradient of the whole batch.

    Reference:
        Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory
        Limited Setup", RepL4NLP 2021.
    """

    def __init__(self, encode: Callable[[int], Features], parts: int, learns: bool) -> None:
        self._encode = encode
        self._parts = parts
        self._learns = learns
        with torch.no_grad():
            pieces = [encode(part) for part in range(parts)]
        self.features: Features = {n: cat_padded([p[n] for p in pieces]) for n in pieces[0]}
        for feature in self.features.values():
            feature.requires_grad_(learns and feature.is_floating_point())

    def backward(self) -> None:
        """Send the gradients of the features on into the encoders."""
        if not self._learns:
            return
        starts = dict.fromkeys(self.features, 0)
        for part in range(self._parts):
            below, above = [], []
            for name, feature in self._encode(part).items():
                start, starts[name] = starts[name], starts[name] + len(feature)
                gradient = self.features[name].grad
                if feature.requires_grad and gradient is not None:
                    below.append(feature)
                    # Without what tokens were padded with.
                    above.append(gradient[start : starts[name], : feature.shape[1]])
            if below:
                torch.autograd.backward(below, above)
