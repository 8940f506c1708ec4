import inspect

from torch import nn

__all__ = ["Printed"]


class Printed(nn.Module):
    """A module that prints the settings it was made with, as far as attributes hold them."""

    def extra_repr(self) -> str:
        """The first one, and those that are not the default; modules print themselves."""
        _, *parameters = inspect.signature(type(self).__init__).parameters.values()
        shown = []
        for number, parameter in enumerate(parameters):
            value = getattr(self, parameter.name, parameter.default)
            if isinstance(value, nn.Module) or (number > 0 and value == parameter.default):
                continue
            shown.append(f"{parameter.name}={value!r}")
        return ", ".join(shown)
