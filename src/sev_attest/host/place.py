"""Where a host is: whether it may be this machine, and how its URI is shown.

Does not verify: anything. It guards against a mistake, since a host chooses its own name.
"""

import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import unquote, urlsplit

# It begins where no scheme can have begun before: a long word is gone through once.
_URI = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]++://\S+")


def shown(uri: str) -> str:
    """Show a URI without what may be secret in it: who connects, and the query.

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
    """Show a text that may quote ``uri``, or others, as :func:`shown` shows them."""
    return _URI.sub(lambda found: shown(found[0]), text.replace(uri, shown(uri)))


def leads_here(uri: str) -> bool:
    """Tell whether a URI of libvirt's may lead to this machine.

    That is one without a host, one to a socket, and one whose host has an address of this
    machine's. It may take as long as the machine's resolver does.
    """
    try:
        parts = urlsplit(uri)
        host = unquote(parts.hostname or "")
    except ValueError:
        return True
    if not host or parts.scheme.endswith("+unix"):
        return True
    with suppress(OSError, ValueError):  # an ssh alias, say, has no address
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        return any(_own(family, address) for family, *_, address in found)
    return False


def named_here(name: str) -> bool:
    """Tell whether a name may be this machine's, or is nobody's; domains are not compared.

    It may take as long as the machine's resolver does.
    """
    label = _label(name)
    own = {_label(one) for one in (socket.gethostname(), socket.getfqdn())}
    return not label or label.startswith("localhost") or label in own


def ends_here(connected: socket.socket) -> bool:
    """Tell whether both ends of a connection are on this machine."""
    here, there = (_address(end()[0]) for end in (connected.getsockname, connected.getpeername))
    return there.is_loopback or here == there


def _own(family: int, address: tuple[object, ...]) -> bool:
    """Tell whether an address, as getaddrinfo gives it, is this machine's: it can be bound to."""
    number = _address(str(address[0]))
    if number.is_loopback or number.is_unspecified:
        return True
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as trial:
        trial.bind((address[0], 0, *address[2:]))
        return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address; an IPv4 one that is written as an IPv6 one is the former."""
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _label(name: str) -> str:
    return name.casefold().partition(".")[0]
