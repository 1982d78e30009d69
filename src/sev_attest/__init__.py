"""Guest attestation for AMD SEV, SEV-ES and SEV-SNP, on the guest owner's side.

=========  ========================================================================
package    what is in it
=========  ========================================================================
``sev``    platform certificates, sessions, launch measurements, secrets
``snp``    SEV-SNP: attestation reports
``guest``  firmware, kernel hashes and vCPU state: what is measured of a guest
``owner``  an owner's requirements, the ledger, and key release in one call
=========  ========================================================================

Every error is a :class:`SevAttestError`; they are here, beside the packages.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sev_attest._api import *  # noqa: F403

__version__ = "0.2.0"


# As _lazy.py does it. Nothing is imported here: the command handles signals before any import.
def __getattr__(name: str) -> object:
    """Return a public name, imported on first use."""
    # dunder names but __all__ are asked for while the package is being filled
    if name == "__all__" or not name.startswith("_"):
        from sev_attest._lazy import lazy

        return lazy(__name__)[0](name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, for completion."""
    from sev_attest._lazy import lazy

    return lazy(__name__)[1]()
