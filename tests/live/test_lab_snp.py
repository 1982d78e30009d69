"""The lab, for SEV-SNP: the real libvirtd takes every domain that was prepared for it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.prepare import prepare
from sev_attest.domain_xml.rule import Subject
from sev_attest.testing.lab import Lab
from test_domain_snp import LAUNCH, SNP_CASES, SNP_CLEAN, SNP_HOST, SNP_LOADER, SnpCase, params

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    os.geteuid() == 0, reason="libvirtd's session mode is not for root: see docs/lab.md"
)
SINCE = 10_005_000
"""The first libvirt that knows sev-snp."""
LOADERS = [
    f"<loader{kind}{readonly}{secure}{stateless}>{path}</loader>"
    for kind, readonly, secure, stateless, path in product(
        ("", " type='rom'", " type='pflash'"),
        ("", " readonly='yes'", " readonly='no'"),
        ("", " secure='yes'", " secure='no'"),
        ("", " stateless='yes'", " stateless='no'"),
        ("", "/srv/OVMF.amdsev.fd"),
    )
]


@pytest.fixture(scope="module")
def takes() -> Iterator["Callable[[str], str]"]:
    """Start a host, and return what defines a domain there and removes it again.

    It returns libvirt's error; empty if it takes the domain.
    """
    libvirt: Any = pytest.importorskip("libvirt")
    if libvirt.getVersion() < SINCE:
        pytest.skip("libvirt before 10.5 does not know sev-snp")
    libvirt.registerErrorHandler(lambda _, __: None, None)
    folder = Path(tempfile.mkdtemp(prefix="sev-lab-snp-"))
    try:
        with Lab(folder, show=print) as lab, closing(libvirt.open(lab.uri)) as host:
            emulator = f"<devices><emulator>{lab.folder}/bin/qemu-system-x86_64</emulator>"

            def define(text: str) -> str:
                here = text.replace("type='kvm'", "type='qemu'", 1)
                here = here.replace("<devices>", emulator, 1)
                try:
                    host.defineXMLFlags(here, libvirt.VIR_DOMAIN_DEFINE_VALIDATE).undefine()
                except libvirt.libvirtError as error:
                    return str(error)
                return ""

            yield define
    finally:
        shutil.rmtree(folder)


def prepared(text: str) -> tuple[str, set[str]]:
    """Prepare a domain for this libvirt; return its XML, and the rules that are left broken."""
    libvirt: Any = pytest.importorskip("libvirt")
    version = libvirt.getVersion()
    host = SNP_HOST._replace(libvirt=(version // 1_000_000, version // 1000 % 1000))
    done = prepare(Subject(domain=parse_domain(text.encode()), versions=host), LAUNCH)
    return done.xml.decode(), {one.id for one in done.errors}


def test_the_clean_domain_and_one_with_a_slip_in_it(takes: "Callable[[str], str]") -> None:
    assert takes(SNP_CLEAN) == ""
    assert takes(SNP_CLEAN.replace("sev-snp", "sev-snip")) != ""


def unfounded(xml: str, words: str) -> bool:
    """Return whether libvirt refuses a domain, but not for want of firmware that it can choose."""
    return words != "" and not ("firmware='efi'" in xml and "Unable to find" in words)


@pytest.mark.parametrize(("name", "broken"), params(ready=True))
def test_every_prepared_domain_is_defined(
    takes: "Callable[[str], str]", name: str, broken: SnpCase
) -> None:
    xml = broken.prepare(everything=True).xml.decode()
    words = takes(xml)
    print(f"\n{name}: {words or 'accepted'}")
    assert not unfounded(xml, words), words


# The last is empty: to libvirt it is not there.
@pytest.mark.parametrize("broken", SNP_CASES["domain.snp.length"][:-1])
def test_libvirt_refuses_these_lengths_too(takes: "Callable[[str], str]", broken: SnpCase) -> None:
    words = takes(broken.text)
    print(f"\n{words}")
    assert "Unexpected length of" in words


@pytest.mark.parametrize("firmware", ["", " firmware='efi'"], ids=["named", "chosen"])
def test_whatever_the_loader_was_the_prepared_domain_is_defined(
    takes: "Callable[[str], str]", firmware: str
) -> None:
    """Only what libvirt chooses may be missing on a host: that is a warning."""
    for loader in LOADERS:
        text = SNP_CLEAN.replace(SNP_LOADER, loader).replace("<os>", f"<os{firmware}>")
        xml, left = prepared(text)
        assert left == set(), loader
        words = takes(xml)
        assert not unfounded(xml, words), (loader, words)
    print(f"\n{len(LOADERS)} domains, prepared and defined")
