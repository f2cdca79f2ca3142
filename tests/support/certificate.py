"""A certificate for a server under test that runs in the test's own loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.need import need

if TYPE_CHECKING:
    from pathlib import Path


def certificate_options(directory: Path) -> dict[str, Any]:
    """Return options of `uvicorn_config` for TLS, with a new certificate in *directory*."""
    need("trustme")
    import trustme

    pem = directory / "server.pem"
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    return {"ssl_certfile": str(pem), "ssl_keyfile": str(pem)}
