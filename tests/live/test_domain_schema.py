"""libvirt itself accepts every domain that a test calls good, and every one that was mended.

By its schema, and by the code that reads domains (its test driver, which starts none). Needs
virt-xml-validate and virsh: Debian's libvirt-clients, libxml2-utils and libvirt0.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Run
from sev_attest import MalformedInput
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.versions import before, read_version
from test_cli_domain import guide_examples, lay_out
from test_domain_snp import SNP_CLEAN, SnpCase, params
from test_domain_xml import CLEAN, EFI, EVERY, HIDING, Case


def refused(text: str) -> str:
    """Return libvirt's error for a domain; empty if it accepts it."""
    for tool in ("virt-xml-validate", "xmllint", "virsh"):
        assert shutil.which(tool), "apt-get install libvirt-clients libxml2-utils libvirt0"
    Path("schema.xml").write_text(text)
    Path("define.xml").write_text(re.sub("<domain( type='[a-z]+')?", "<domain type='test'", text))
    words = ""
    for command in (
        ["virt-xml-validate", "schema.xml", "domain"],
        ["virsh", "-c", "test:///default", "define", "define.xml", "--validate"],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        words += ran.stdout + ran.stderr if ran.returncode else ""
    return words


def installed() -> tuple[int, ...]:
    """Return the version of the installed libvirt."""
    ran = subprocess.run(["virsh", "--version"], capture_output=True, text=True, check=True)
    return read_version(ran.stdout)


def test_the_clean_domain(here: Path) -> None:
    assert refused(CLEAN) == ""
    assert refused(CLEAN.replace("<vcpu", "<vcpus")) != ""
    print("\nthe clean domain: accepted; one with a slip in it: refused")


@pytest.mark.parametrize(("name", "broken"), EVERY)
def test_every_mended_domain(here: Path, name: str, broken: Case) -> None:
    words = refused(broken.prepare(everything=True).xml.decode())
    print(f"\n{name}: {'refused' if words else 'accepted'}")
    if words and broken.valid and before(installed(), broken.versions.libvirt or (0,)):
        return  # what is mended for a newer libvirt, this one need not take
    assert (words == "") is broken.valid, words


@pytest.fixture(scope="module")
def sev_snp() -> None:
    """Skip where the installed libvirt does not know sev-snp."""
    if before(installed(), (10, 5)):
        pytest.skip("libvirt before 10.5 does not know sev-snp")


@pytest.mark.usefixtures("sev_snp")
def test_the_clean_snp_domain(here: Path) -> None:
    assert refused(SNP_CLEAN) == ""
    assert (
        refused(SNP_CLEAN.replace("<hostData", "<hostDate").replace("hostData>", "hostDate>")) != ""
    )


@pytest.mark.usefixtures("sev_snp")
@pytest.mark.parametrize(("name", "broken"), params(ready=True))
def test_every_mended_snp_domain(here: Path, name: str, broken: SnpCase) -> None:
    words = refused(broken.prepare(everything=True).xml.decode())
    print(f"\n{name}: {words or 'accepted'}")
    assert words == ""


def test_the_guide_s_examples(run: Run, real: Path, here: Path) -> None:
    lay_out(here)
    seen = []
    for text in guide_examples(real):
        before = refused(text)
        Path("guide.xml").write_text(text)
        ran = run("domain", "prepare", "guide.xml", "--session", "keys/vm1", "--all")
        assert ran.code == 0
        assert refused(ran.out) == ""
        seen.append(f"as it is: {before.splitlines()[0]}; mended: accepted")
    print("", *seen, sep="\n")


@pytest.mark.parametrize("hiding", HIDING.values(), ids=HIDING)
def test_libvirt_reads_an_attribute_in_a_namespace_as_one_without(here: Path, hiding: str) -> None:
    text = CLEAN.replace("type='sev'", "type='sev' kernelHashes='yes'")
    hidden = text.replace("launchSecurity type", f"launchSecurity {hiding} type")
    for xml, read in ((text, "yes"), (hidden, "no")):
        Path("define.xml").write_text(xml.replace("type='kvm'", "type='test'"))
        command = ["virsh", "-c", "test:///default", "define define.xml; dumpxml vm1"]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        assert f"<launchSecurity type='sev' kernelHashes='{read}'>" in ran.stdout
    print(f"\n{hiding}: libvirt reads kernelHashes='no'; here it is refused")
    with pytest.raises(MalformedInput, match="kernelHashes in a namespace"):
        parse_domain(hidden.encode())


def test_firmware_that_is_named_and_to_be_chosen(here: Path) -> None:
    words = refused(CLEAN.replace(*EFI))
    print(f"\n{words.strip()}")
    assert "cannot be specified when firmware autoselection is enabled" in words
