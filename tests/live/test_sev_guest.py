"""/dev/sev-guest: the layouts and numbers of the kernel's header.

Needs gcc and the header linux/sev-guest.h (Debian: linux-libc-dev).
"""

import shutil
import struct
from pathlib import Path

import pytest

from c_header import c_values
from sev_attest.host import sev_guest

HEADER = "linux/sev-guest.h"

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or not Path("/usr/include", HEADER).exists(),
    reason="needs gcc and linux/sev-guest.h (apt-get install gcc libc6-dev linux-libc-dev)",
)


def places(layout: struct.Struct, count: int) -> list[int]:
    """Return where each field of a layout is found: values that are all ones, one at a time."""
    found = []
    for at in range(count):
        values: list[object] = [0] * count
        values[at] = 1
        if layout.format.startswith("<64s"):
            values[0] = b"\x01" if at == 0 else b""
        found.append(layout.pack(*values).index(1))
    return found


@pytest.mark.parametrize(
    ("name", "layout", "fields"),
    [
        (
            "snp_guest_request_ioctl", sev_guest.ARGUMENT,
            ["msg_version", "req_data", "resp_data", "exitinfo2"],
        ),
        ("snp_report_req", sev_guest.REQUEST, ["user_data", "vmpl"]),
        (
            "snp_ext_report_req", sev_guest.EXTENDED,
            ["data.user_data", "data.vmpl", "certs_address", "certs_len"],
        ),
    ],
)  # fmt: skip
def test_every_structure_is_laid_out_as_in_the_kernel(
    tmp_path: Path, name: str, layout: struct.Struct, fields: list[str]
) -> None:
    asked = [f"offsetof(struct {name}, {one})" for one in fields]
    found = c_values(HEADER, tmp_path, *asked, f"sizeof(struct {name})")
    assert list(found.values()) == [*places(layout, len(fields)), layout.size]


def test_the_numbers_are_the_kernel_s(tmp_path: Path) -> None:
    ours = {
        "SNP_GET_REPORT": sev_guest.SNP_GET_REPORT,
        "SNP_GET_EXT_REPORT": sev_guest.SNP_GET_EXT_REPORT,
        "SNP_GUEST_VMM_ERR_INVALID_LEN": sev_guest._INVALID_LEN,
        "sizeof(struct snp_report_resp)": sev_guest.RESPONSE_SIZE,
    }
    assert c_values(HEADER, tmp_path, *ours) == ours
