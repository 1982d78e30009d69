"""Whether a host may be this machine, and how its URI is shown.

Does not verify: anything. It protects against mistakes: a host can choose its own name.
"""

import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import unquote, urlsplit

# The lookbehind keeps this linear: a long word is searched once, not from each of its letters.
_URI = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]++://\S+")


def shown(uri: str) -> str:
    """Return a URI without user, password and query, which may be secret.

    >>> shown("qemu+tcp://user:password@host/system?pkipath=/home/user")
    'qemu+tcp://host/system'
    """
    scheme, colon, rest = uri.partition("://")
    if not colon:
        scheme, rest = "", uri
    if not rest.startswith("/"):
        rest = rest.rpartition("@")[2]
    return scheme + colon + re.split("[?#]", rest, maxsplit=1)[0]


def public(text: str, uri: str) -> str:
    """Return a text in which every URI is replaced by what :func:`shown` returns for it."""
    return _URI.sub(lambda found: shown(found[0]), text.replace(uri, shown(uri)))


def leads_here(uri: str) -> bool:
    """Return whether a URI of libvirt may lead to this machine.

    That is a URI without a host, one to a socket, and one whose host has an address of this
    machine. The host's name is resolved, which may take long.
    """
    try:
        parts = urlsplit(uri)
        host = unquote(parts.hostname or "")
    except ValueError:
        return True
    if not host or parts.scheme.endswith("+unix"):
        return True
    with suppress(OSError, ValueError):  # an ssh alias has no address
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        return any(_own(family, address) for family, *_, address in found)
    return False


def named_here(name: str) -> bool:
    """Return whether a host's name may be this machine's, or is empty.

    Only the part before the first dot is compared. This machine's name is resolved, which may take
    long.
    """
    label = _label(name)
    own = {_label(one) for one in (socket.gethostname(), socket.getfqdn())}
    return not label or label.startswith("localhost") or label in own


def ends_here(connected: socket.socket) -> bool:
    """Return whether both ends of a connection are on this machine."""
    here, there = (_address(end()[0]) for end in (connected.getsockname, connected.getpeername))
    return there.is_loopback or here == there


def _own(family: int, address: tuple[object, ...]) -> bool:
    """Return whether an address of getaddrinfo is this machine's: then it can be bound."""
    number = _address(str(address[0]))
    if number.is_loopback or number.is_unspecified:
        return True
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as trial:
        trial.bind((address[0], 0, *address[2:]))
        return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address; an IPv4 address in IPv6 form becomes IPv4."""
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _label(name: str) -> str:
    return name.casefold().partition(".")[0]
