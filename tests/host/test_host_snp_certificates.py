"""``sev_attest.host.snp_certificates``: what AMD's key server serves for a report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.host.connection import HostError
from sev_attest.host.kds import KeyServer, NotServed
from sev_attest.host.snp_certificates import Fetched, fetch_certificates
from sev_attest.snp.certificates import Kind
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.tcb import Product
from snp_material import AMD, AUTHORITIES, MILAN, PLATFORMS, pem
from vault_stand_in import StandIn, serving

pytestmark = pytest.mark.usefixtures("_loopback")
GENOA = PLATFORMS[Product.GENOA]


def served(product: Product) -> dict[str, bytes]:
    """Return what AMD's server has for a simulated chip, by path."""
    authority, name = AUTHORITIES[product], product.value
    platform = PLATFORMS[product]
    return {
        f"/vcek/v1/{name}/{platform.hwid.hex()}": platform.vek(),
        f"/vcek/v1/{name}/cert_chain": pem(authority.ask) + pem(authority.ark),
        f"/vlek/v1/{name}/cert_chain": pem(authority.asvk) + pem(authority.ark),
    }


class Amd:
    """AMD's server: what it has, and what it was asked for."""

    def __init__(self, stand_in: StandIn) -> None:
        self.has = {path: data for product in Product for path, data in served(product).items()}
        self.asked: list[str] = []
        self.status = 404
        self.url = f"http://{stand_in.host}"
        stand_in.fault = self.answer

    def answer(self, handler: Any) -> None:
        self.asked.append(handler.path)
        data = self.has.get(handler.path.partition("?")[0])
        handler.send(*((200, data) if data is not None else (self.status, b"")))

    def fetch(self, report: bytes) -> Fetched:
        return fetch_certificates(
            KeyServer(self.url), AttestationReport.from_bytes(report), wait=never
        )


def never(address: str, seconds: int) -> None:
    raise AssertionError(f"nobody asked to wait {seconds} seconds")


@pytest.fixture
def amd(tmp_path: Path) -> Iterator[Amd]:
    with serving(tmp_path, tls=False) as stand_in:
        yield Amd(stand_in)


@pytest.mark.parametrize("product", Product)
def test_the_vcek_and_its_chain_are_fetched(amd: Amd, product: Product) -> None:
    found = amd.fetch(PLATFORMS[product].report())
    assert found.vcek == PLATFORMS[product].vek()
    assert found.chain == served(product)[f"/vcek/v1/{product.value}/cert_chain"]
    assert len(amd.asked) == 2
    assert "SPL=" in amd.asked[0]


def test_for_a_vlek_only_the_chain_is_fetched(amd: Amd) -> None:
    found = amd.fetch(MILAN.report(Kind.VLEK))
    assert found == Fetched(vcek=b"", chain=pem(AMD.asvk) + pem(AMD.ark))


def test_for_a_vlek_of_version_2_there_is_the_chain_of_each_product(amd: Amd) -> None:
    found = amd.fetch(MILAN.report(Kind.VLEK, version=2))
    assert found.chain.count(b"BEGIN CERTIFICATE") == 6


def test_version_2_asks_for_each_product(amd: Amd) -> None:
    found = amd.fetch(GENOA.report(version=2))
    assert found.vcek == GENOA.vek()
    assert [path.split("/")[3] for path in amd.asked] == ["Milan", "Genoa", "Genoa"]


def test_a_chip_that_is_not_served_is_an_error_that_says_why(amd: Amd) -> None:
    other = MILAN.report(chip_id=bytes(range(64)))
    with pytest.raises(
        NotServed, match=r"no VCEK of this chip at this TCB \(status 404\)"
    ) as caught:
        amd.fetch(other)
    assert (caught.value.check, caught.value.exit_code) == ("kds.snp", 6)
    assert "TCB or chip id is wrong" in caught.value.hint


def test_another_status_ends_the_search(amd: Amd) -> None:
    amd.status = 403
    with pytest.raises(HostError, match="refuses the request"):
        amd.fetch(GENOA.report(version=2))
    assert len(amd.asked) == 1


@pytest.mark.parametrize(
    ("path", "data", "words"),
    [
        (f"/vcek/v1/Milan/{MILAN.hwid.hex()}", AMD.ask, "it serves ASK, expected VCEK"),
        ("/vcek/v1/Milan/cert_chain", pem(AMD.ask), "it serves ASK, expected ASK, ARK"),
        ("/vcek/v1/Milan/cert_chain", pem(AMD.crl(), "X509 CRL"), "it serves no certificate"),
        ("/vcek/v1/Milan/cert_chain", b"<html>", "not base64"),
    ],
)
def test_anything_else_that_it_serves_is_refused(
    amd: Amd, path: str, data: bytes, words: str
) -> None:
    amd.has[path] = data
    with pytest.raises(MalformedInput, match=words) as caught:
        amd.fetch(MILAN.report())
    assert caught.value.source.startswith(f"{amd.url}{path}")


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (MILAN.report(chip_id=bytes(64)), "names no chip"),
        (MILAN.report(cpuid_family=0x1C), "CPUID is of no known product"),
    ],
)
def test_a_report_without_an_address_is_refused(amd: Amd, report: bytes, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        amd.fetch(report)
    assert not amd.asked


def test_a_server_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path, tls=False) as stand_in:
        amd = Amd(stand_in)
        busy = [True]

        def answer(handler: Any) -> None:
            if busy.pop() if busy else False:
                handler.send(429, b"", **{"Retry-After": "10"})
            else:
                amd.answer(handler)

        stand_in.fault = answer
        waited: list[tuple[str, int]] = []
        report = AttestationReport.from_bytes(MILAN.report())
        fetch_certificates(KeyServer(amd.url), report, wait=lambda *given: waited.append(given))
        assert [seconds for _, seconds in waited] == [10]
        assert waited[0][0].startswith(f"{amd.url}/vcek/v1/Milan/")
