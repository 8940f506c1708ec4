import inspect

from torch import nn


class LossRepr(nn.Module):
    """A loss that prints the settings it was made with, as far as attributes hold them."""

    def extra_repr(self) -> str:
        """Show the first setting, and those that are not the default; modules print themselves."""
        _, *parameters = inspect.signature(type(self).__init__).parameters.values()
        held = vars(self)  # modules are not in it
        return ", ".join(
            f"{parameter.name}={held[parameter.name]!r}"
            for number, parameter in enumerate(parameters)
            if parameter.name in held and (number == 0 or held[parameter.name] != parameter.default)
        )
