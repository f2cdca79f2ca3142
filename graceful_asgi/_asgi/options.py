"""What the operator says of a server: it wins over what its app says. Pure; nothing here acts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from ..policy import ENV_PREFIX, DrainPolicy, fields_from_env
from .health import Probes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

OVERRIDES_KEY: Final = "graceful_asgi.overrides"
"""Where the lifespan's `scope["state"]` holds them, for the middleware that the app may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """The fields of `DrainPolicy` and `Probes` that were given for this very server. Immutable."""

    policy: Mapping[str, Any] = field(default_factory=dict)
    probes: Mapping[str, str] = field(default_factory=dict, repr=False)  # one is a secret

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return what `GRACEFUL_<FIELD>` gives in the environment. An empty path is none.

        Raises:
            PolicyError: (a `ValueError`) a policy's field is not allowed.
        """
        environ = os.environ if environ is None else environ
        probes = {each.name: environ.get(ENV_PREFIX + each.name.upper()) for each in fields(Probes)}
        return cls(
            policy=fields_from_env(environ),
            probes={name: text for name, text in probes.items() if text},
        )

    def updated(self, *, policy: Mapping[str, Any], probes: Mapping[str, str]) -> Self:
        """Return these with others on top."""
        return replace(self, policy={**self.policy, **policy}, probes={**self.probes, **probes})

    def policy_over(self, policy: DrainPolicy) -> DrainPolicy:
        """Return *policy* with what was given in the place of its own."""
        return replace(policy, **self.policy)

    def probes_over(self, probes: Probes | None) -> Probes | None:
        """Return *probes* with what was given in the place of their own.

        Raises:
            PolicyError: (a `ValueError`) they do not go together: a path twice, no token.
        """
        return replace(probes or Probes(), **self.probes) if self.probes else probes
