"""Checks of the kernel: its version, its command line, and the parameters of kvm_amd."""

import re
from collections.abc import Callable, Iterator
from itertools import chain

from sev_attest.domain_xml.versions import Version, before, dotted
from sev_attest.domain_xml.xml import short
from sev_attest.host.inspect.check import (
    Answer,
    Check,
    Need,
    check,
    missing,
    needed,
    note,
    ok,
    unknown,
)
from sev_attest.host.inspect.machine import Machine

_PARAMETERS = "/sys/module/kvm_amd/parameters"
_MODPROBE = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d",
             "/usr/lib/modprobe.d", "/lib/modprobe.d")  # fmt: skip
"""Folders of module options, the first wins for a file name (modprobe.d(5))."""
# Others write these files: the quantifiers are possessive, so no pattern backtracks.
_KVM = re.compile("kvm")
_OPTIONS = re.compile(r"\s*+options\s++kvm[_-]amd\s++(.*)")
_BLACKLIST = re.compile(r"\s*+(?:blacklist\s++kvm[_-]amd\s*+$|install\s++kvm[_-]amd\s)")
_ON_COMMAND_LINE = re.compile(r"kvm[_-]amd\.(.*)")
_SETTING = re.compile(r"(sev|sev_es|sev_snp)(?:=(\S*))?")
_YES, _NO = ("1", "y", "on"), ("0", "n", "off")
"""What the kernel takes for a boolean (lib/kstrtox.c, kstrtobool); "" is yes."""
_VERSIONS: dict[Need, Version] = {Need.SEV: (4, 16), Need.ES: (5, 11), Need.SNP: (6, 11)}
"""The first kernels whose KVM can start such guests."""
_VIRTIO_BLK: Version = (5, 1)
_GRUB = "/etc/default/grub"
_BOOT_LINE = "/etc/kernel/cmdline"
_PERSISTENT = (
    'append mem_encrypt=on kvm_amd.sev=1 to GRUB_CMDLINE_LINUX="..." in /etc/default/grub, then '
    "run `grub2-mkconfig -o /boot/grub2/grub.cfg` (Debian: `update-grub`) and reboot"
)
_LOADING = (
    "`echo 'options kvm_amd sev=1' > /etc/modprobe.d/sev.conf`, then reboot, or, with no guest "
    "running, `modprobe -r kvm_amd && modprobe kvm_amd`"
)

_SHOW_SETTINGS = "`grep -o 'kvm_amd[^ ]*' /proc/cmdline; modprobe -c | grep kvm_amd` on the host"


@check(
    "host.kernel.version", "the kernel is new enough", "/proc/sys/kernel/osrelease, /proc/version",
    "Linux: KVM for SEV 4.16, SEV-ES 5.11, SEV-SNP 6.11",
)  # fmt: skip
def version(machine: Machine, need: Need) -> Answer:
    """Compare the running kernel with the first one that has what the guests need."""
    found = machine.kernel
    if found is None:
        return unknown("the kernel's version is not known", "`uname -r` prints it")
    able = [one for one, least in _VERSIONS.items() if not before(found, least)]
    if need in able:
        return ok(f"{dotted(found)}, new enough for {', '.join(one.title for one in able)}")
    least = dotted(_VERSIONS[need])
    what = f"{dotted(found)}: {need.title} guests need {least}"
    if machine.parameter(need.parameter) is not None:
        return note(f"{what}, but kvm_amd knows {need.parameter}: a backport")
    return missing(what, f"boot a kernel of {least} or later")


def _parameter(least: Need) -> Callable[[Machine, Need], Answer]:
    """Return the function of the check for the parameter of ``least``."""

    def look(machine: Machine, need: Need) -> Answer:
        name = least.parameter
        fix = _LOADING.replace("sev=1", "sev=1" if least is Need.SEV else f"sev=1 {name}=1")
        on = machine.parameter(name)
        if on:
            return ok(f"{_PARAMETERS}/{name} is on")
        if on is False:
            return needed(least, need, f"{_PARAMETERS}/{name} is off", fix)
        if machine.tree.exists(_PARAMETERS):
            return needed(
                least, need, f"kvm_amd has no parameter {name}", "boot a newer kernel, built with "
                "CONFIG_KVM_AMD_SEV"
            )  # fmt: skip
        return needed(
            least, need, "the module kvm_amd is not loaded", "`modprobe kvm_amd`", absent=True
        )

    return look


_READS = f"{_PARAMETERS}/"
_MODULES = ("/sys/module",)
sev: Check = check(
    "host.kvm.sev", "KVM has SEV on", f"{_READS}sev",
    "guide: Enabling SEV on the host; sevctl ok: SEV enabled in KVM; virt-host-validate",
    essential=Need.SEV, within=_MODULES,
)(_parameter(Need.SEV))  # fmt: skip
es: Check = check(
    "host.kvm.sev-es", "KVM has SEV-ES on", f"{_READS}sev_es", "Linux, arch/x86/kvm/svm/sev.c",
    essential=Need.ES, within=_MODULES,
)(_parameter(Need.ES))  # fmt: skip
snp: Check = check(
    "host.kvm.sev-snp", "KVM has SEV-SNP on", f"{_READS}sev_snp", "Linux, arch/x86/kvm/svm/sev.c",
    essential=Need.SNP, within=_MODULES,
)(_parameter(Need.SNP))  # fmt: skip


@check(
    "host.kvm.device", "KVM is there", "/dev/kvm", "sevctl ok: KVM Support", within=("/dev",),
)  # fmt: skip
def kvm(machine: Machine, _need: Need) -> Answer:
    """Look for the device."""
    if machine.tree.exists("/dev/kvm"):
        return ok("/dev/kvm is there")
    fix = "enable SVM in the BIOS setup, then `modprobe kvm_amd`"
    return missing("no /dev/kvm", fix, absent=True)


@check(
    "host.sme", "SME, which encrypts the host's own memory, is on", "/proc/cmdline, /proc/cpuinfo",
    "guide: mem_encrypt=on; sevctl ok: SME",
)  # fmt: skip
def sme(machine: Machine, _need: Need) -> Answer:
    """Look at the command line; SEV guests start without it, too."""
    words = machine.command_line
    if words is None:
        return unknown("/proc/cmdline is missing", "`cat /proc/cmdline`")
    asked = [word for word in words if word.startswith("mem_encrypt=")]
    if asked[-1:] == ["mem_encrypt=on"]:
        if "sme" in machine.flags:
            return ok("the kernel's command line has mem_encrypt=on, the CPU the flag sme")
        # Linux clears the flag if the BIOS has SME off, since 6.0 also if SME is not in use.
        what = "the kernel's command line has mem_encrypt=on, but the CPU has no flag sme"
        return note(what, "in the BIOS setup, enable SMEE (secure memory encryption)")
    found = f"the kernel's command line has {asked[-1] if asked else 'no mem_encrypt=on'}"
    return note(f"{found}: the host's own memory may not be encrypted", _PERSISTENT)


@check(
    "host.kvm.settings", "kvm_amd.sev=1 or `options kvm_amd sev=1` is set, and nothing against it",
    "/proc/cmdline, modprobe.d in /etc, /run, /usr/lib", "guide: Enabling SEV on the host",
    within=("/proc", "/etc"),
)  # fmt: skip
def settings(machine: Machine, need: Need) -> Answer:
    """Collect what the command line and modprobe.d set."""
    # A file may say the same a million times: only what differs is kept.
    found = dict.fromkeys(chain(_command_line(machine), _modprobe(machine)))
    wanted = [one.parameter for one in Need if one <= need]
    on = [where for where, name, value in found if name in wanted and value]
    off = [where for where, name, value in found if name in wanted and not value]
    if on and off:
        what = f"{_list(on)}, but {_list(off)}: they contradict each other"
        return unknown(what, "keep one of them")
    if off:
        fix = f"remove it, or write `options kvm_amd {'=1 '.join(wanted)}=1`, and reboot"
        return missing(_list(off), fix)
    if on:
        return ok(_list(on))
    unseen = _unseen(machine)
    if unseen:
        return unknown(f"no {unseen} here, where it may be set", _SHOW_SETTINGS)
    if machine.parameter(need.parameter):
        return ok("nothing is set, and the kernel turns it on by itself")
    return note("nothing is set", _LOADING, absent=True)


def _unseen(machine: Machine) -> str:
    """Return what a copy of few files lacks of the places for settings, "" if it has them."""
    if machine.command_line is None:
        return "/proc/cmdline"
    # The running machine may have none of these folders; a copy of it may lack them all.
    if machine.tree.live or any(map(machine.tree.exists, _MODPROBE)):
        return ""
    return "modprobe.d"


Setting = tuple[str, str, bool]
"""Where it stands, the parameter, and whether it turns it on."""


def _command_line(machine: Machine) -> Iterator[Setting]:
    for word in machine.command_line or ():
        for found in _ON_COMMAND_LINE.finditer(word):
            yield from _parsed(found[1], f"{short(word)} on the command line")


def _modprobe(machine: Machine) -> Iterator[Setting]:
    """Yield the settings of modprobe.d, each file name once, as modprobe does."""
    for path, data in machine.tree.collected(_MODPROBE, ".conf"):
        lines = data.decode("utf-8", "replace").replace("\\\n", " ").splitlines()
        for line in filter(_KVM.search, lines):
            if _BLACKLIST.match(line):
                yield f"`{short(line.strip())}` in {path}", Need.SEV.parameter, False
            found = _OPTIONS.match(line)
            for word in dict.fromkeys(found[1].split()) if found else ():
                yield from _parsed(word, f"{word} in {path}")


def _parsed(word: str, where: str) -> Iterator[Setting]:
    """Yield what a word sets; nothing if the kernel refuses its value."""
    found = _SETTING.fullmatch(word)
    if found:
        value = (found[2] if found[2] is not None else "1").lower()
        if value in _YES or value in _NO:
            yield where, found[1], value in _YES


def _list(places: list[str]) -> str:
    return ", ".join(dict.fromkeys(places))


@check(
    "host.boot", "the settings outlast a reboot", "/etc/default/grub, /etc/kernel/cmdline",
    "guide: GRUB_CMDLINE_LINUX", within=("/etc",),
)  # fmt: skip
def boot(machine: Machine, _need: Need) -> Answer:
    """Look for the words in the boot loader's settings."""
    texts = {path: machine.tree.text(path) for path in (_GRUB, _BOOT_LINE)}
    lines = [
        line
        for text in texts.values() if text
        for line in text.splitlines() if not line.lstrip().startswith("#")
    ]  # fmt: skip
    if any(re.search(r"\bmem_encrypt=on\b", line) for line in lines):
        return ok("mem_encrypt=on is in the boot loader's settings")
    if not lines:
        what = "no /etc/default/grub or /etc/kernel/cmdline"
        return note(what, "set it in your boot loader", absent=True)
    return note("mem_encrypt=on is not in the boot loader's settings", _PERSISTENT)


@check(
    "host.virtio-blk", "guests with this kernel can boot from virtio-blk",
    "/proc/sys/kernel/osrelease", "guide: Limitations",
)  # fmt: skip
def virtio_blk(machine: Machine, _need: Need) -> Answer:
    """Remind of the limit; it is one of the guest's kernel."""
    found = machine.kernel
    if found is None or before(found, _VIRTIO_BLK):
        what = "the host's is not known" if found is None else f"the host's is {dotted(found)}"
        return note(
            f"a guest with a kernel before 5.1 cannot boot from virtio-blk ({what})",
            "use virtio-scsi; `sev-attest domain check --guest-kernel V` checks it",
        )
    return ok(f"{dotted(found)}, if a guest has it too, boots from virtio-blk (5.1 or later)")


CHECKS: tuple[Check, ...] = (
    version, sme, sev, es, snp, settings, boot, kvm, virtio_blk,
)  # fmt: skip
