"""Proof types: values that only their verifier makes."""


class Seal:
    """What a proof type asks for when it is made; only its verifier holds it.

    ``maker`` is the function to call instead, for the message.
    """

    __slots__ = ("maker",)

    def __init__(self, maker: str) -> None:
        """Name the only function that makes values of the type."""
        self.maker: str = maker

    def require(self, given: object, proof: object) -> None:
        """Raise TypeError if ``given`` is not this seal: ``proof`` was made by hand."""
        if given is not self:
            raise TypeError(f"only {self.maker} makes a {type(proof).__name__}")
