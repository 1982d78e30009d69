"""A stand-in for the HTTP API of HashiCorp Vault and OpenBao, on loopback with TLS.

It is written from their public API documentation ("HTTP API", "Transit", "KV version 2"), not from
their code: the real servers were not tried. It also does what a broken or hostile server may do.
"""

import base64
import binascii
import datetime as dt
import ipaddress
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

TOKEN = "hvs.canary0123456789abcdefTOKEN"
Reply = tuple[int, Any]


class StandIn:
    """A server with transit keys and KV secrets; each is found by namespace, mount and name."""

    def __init__(self) -> None:
        self.tokens = {TOKEN}
        self.transit: dict[tuple[str, str, str], list[bytes]] = {}
        """The versions of each key."""
        self.kv: dict[tuple[str, str, str], dict[str, Any] | None] = {}
        """The latest version of each secret; None if that is deleted."""
        self.sealed = False
        self.fault: Callable[[_Handler], None] | None = None
        """What it does instead of answering."""
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        """Method, path, headers and body of every request."""
        self.ca = Path()
        self.host = ""

    def reply(  # noqa: PLR0911 - one for each thing that may be wrong
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Reply:
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if headers.get("x-vault-token") not in self.tokens:
            return 403, {
                "errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]
            }
        namespace = headers.get("x-vault-namespace", "").strip("/")
        found = re.fullmatch(r"/v1/(.+?)/(encrypt|decrypt|data)/(.+)", path)
        if not found:
            return 404, {"errors": [f'no handler for route "{path[4:]}". route entry not found.']}
        mount, verb, name = found.groups()
        if verb == "data":
            return self.read(namespace, mount, name) if method == "GET" else (405, {"errors": []})
        if all(where[:2] != (namespace, mount) for where in self.transit):
            return 404, {"errors": [f'no handler for route "{path[4:]}". route entry not found.']}
        versions = self.transit.get((namespace, mount, name))
        if versions is None:
            return 400, {"errors": ["encryption key not found"]}
        return getattr(self, verb)(versions, json.loads(body))  # type: ignore[no-any-return]

    def encrypt(self, versions: list[bytes], asked: dict[str, str]) -> Reply:
        try:
            plaintext = base64.b64decode(asked["plaintext"], validate=True)
        except binascii.Error:
            return 400, {"errors": ["failed to base64-decode plaintext"]}
        nonce = b"stand-in nce"
        more = base64.b64decode(asked.get("associated_data", ""))
        sealed = nonce + AESGCM(versions[-1]).encrypt(nonce, plaintext, more)
        text = f"vault:v{len(versions)}:{base64.b64encode(sealed).decode()}"
        return 200, {"data": {"ciphertext": text, "key_version": len(versions)}}

    def decrypt(self, versions: list[bytes], asked: dict[str, str]) -> Reply:
        found = re.fullmatch(r"vault:v(\d+):(.+)", asked["ciphertext"])
        if not found:
            return 400, {"errors": ["invalid ciphertext: no prefix"]}
        if int(found[1]) > len(versions):
            return 400, {"errors": ["invalid ciphertext: version is too new"]}
        sealed = base64.b64decode(found[2])
        more = base64.b64decode(asked.get("associated_data", ""))
        try:
            plain = AESGCM(versions[int(found[1]) - 1]).decrypt(sealed[:12], sealed[12:], more)
        except (InvalidTag, ValueError):
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}

    def read(self, namespace: str, mount: str, path: str) -> Reply:
        where = (namespace, mount, path)
        if where not in self.kv:
            return 404, {"errors": []}
        values = self.kv[where]
        about = {"created_time": "2026-01-01T00:00:00Z", "destroyed": False, "version": 3}
        return 404 if values is None else 200, {"data": {"data": values, "metadata": about}}

    def url(self, path: str, **options: str) -> str:
        """Return the text that names a place on this server."""
        options = {"ca": str(self.ca), **options}
        query = "&".join(f"{name.replace('_', '-')}={value}" for name, value in options.items())
        return f"vault:https://{self.host}/{path}?{query}"


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def _answer(self) -> None:
        stand_in = self.server.stand_in
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        stand_in.seen.append((self.command, self.path, headers, body))
        if stand_in.fault is not None:
            stand_in.fault(self)
            return
        self.send(*stand_in.reply(self.command, self.path, headers, body))

    do_GET = do_POST = _answer  # noqa: N815 - named by http.server

    def send(self, status: int, answer: Any, **headers: str) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, stand_in: StandIn, tls: ssl.SSLContext | None) -> None:
        self.stand_in, self._tls = stand_in, tls
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[Any, Any]:
        connected, address = super().get_request()
        connected.settimeout(20)
        if self._tls is not None:
            # In the thread of the connection: a client that does not trust it ends the handshake.
            connected = self._tls.wrap_socket(
                connected, server_side=True, do_handshake_on_connect=False
            )
        return connected, address

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client hung up


@contextmanager
def serving(folder: Path, *, tls: bool = True) -> Iterator[StandIn]:
    """Run a stand-in; its certificate is in ``folder``."""
    stand_in = StandIn()
    stand_in.ca = folder / "ca.pem"
    with _Server(stand_in, _context(folder) if tls else None) as server:
        stand_in.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()


def _context(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=12))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def told(error: BaseException) -> str:
    """Return everything that an error and those behind it say, for canaries."""
    said = []
    chain: BaseException | None = error
    while chain is not None:
        said += [str(chain), repr(chain), repr(chain.args), repr(vars(chain))]
        chain = chain.__cause__ or chain.__context__
    return "\n".join(said)
