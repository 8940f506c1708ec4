from collections.abc import Callable

import torch
from torch import Tensor

# Reference, text and target features.
Features = tuple[Tensor, Tensor, Tensor]


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
        sides = zip(*pieces, strict=True)
        image, text, target = (torch.cat(side).requires_grad_(learns) for side in sides)
        self.features: Features = (image, text, target)

    def backward(self) -> None:
        """Send the gradients of the features on into the encoders."""
        if not self._learns:
            return
        starts = [0, 0, 0]
        for part in range(self._parts):
            below, above = [], []
            for side, feature in enumerate(self._encode(part)):
                rows = slice(starts[side], starts[side] + len(feature))
                starts[side] = rows.stop
                gradient = self.features[side].grad
                if feature.requires_grad and gradient is not None:
                    below.append(feature)
                    above.append(gradient[rows])
            if below:
                torch.autograd.backward(below, above)
