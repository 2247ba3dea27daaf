"""How configuration that agents register is read, patched and refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server.agents.channels import Refusal
from wire.commands import RawConfig
from wire.errors import ConfigError
from wire.layers import Layer, patch
from wire.resolve import Scope, read_layer


class ConfigRules:
    """Reads layers and lets only those pass that could serve a call."""

    def __init__(self, check: Callable[[str, Sequence[Layer]], object]) -> None:
        """`check` resolves an organisation's layers, weakest first; raises `ConfigError` for what serves no call."""
        self._check = check

    def read(self, org_id: str, config: RawConfig, scope: Scope, below: Sequence[Layer] = ()) -> Layer:
        """A checked layer from a frame; `below` are the layers it lies on. Raises `Refusal`."""
        try:
            layer = read_layer(config, scope)
            self._check(org_id, [*below, layer])
        except ConfigError as error:
            raise _refused(error) from error
        return layer

    def patched(self, org_id: str, base: Layer, config: RawConfig, scope: Scope, below: Sequence[Layer] = ()) -> Layer:
        """`base` after a patch, checked. Raises `Refusal`."""
        try:
            layer = patch(base, read_layer(config, scope))
            self._check(org_id, [*below, layer])
        except ConfigError as error:
            raise _refused(error) from error
        return layer


def _refused(error: ConfigError) -> Refusal:
    code = "REGISTRATION_ERROR" if error.code == "CONFIG_ERROR" else error.code
    return Refusal(code, str(error))
