"""QEMU's command line, as libvirt writes it: the SEV guest in it, and the rest for real QEMU.

Sources: QEMU's qemu-options.hx and qapi/qom.json; libvirt's src/qemu/qemu_command.c.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sev_attest.testing.qemu import GuestInputs, QemuError, cpu_signature

_SEV = "sev-guest"
_SECURED = "confidential-guest-support"
_READ = (
    *("machine", "M", "object", "chardev", "qmp", "blockdev", "drive", "smp", "cpu"),
    *("bios", "kernel", "initrd", "append"),
)
"""Options that are read; each has a value."""
_ES = 4
"""Bit of the guest policy."""


@dataclass(slots=True, kw_only=True)
class SevGuest:
    """The SEV guest that a command line describes. Its files are named, not read."""

    policy: int
    godh: str | None = None
    session: str | None = None
    kernel_hashes: bool = False
    firmware: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str = ""
    vcpus: int = 1
    cpu: str = "qemu64"

    def to_json(self) -> str:
        """Return it as JSON, to pass it to another process."""
        return json.dumps(asdict(self))

    def inputs(self) -> GuestInputs:
        """Return the launch's inputs, read from the files.

        Raises OSError, QemuError without firmware, ValueError for a GODH or session that is not
        base64.
        """
        if self.firmware is None:
            raise QemuError("no firmware: name one with -bios or pflash")
        measured = self.kernel_hashes and self.kernel is not None
        return GuestInputs(
            policy=self.policy,
            firmware=Path(self.firmware).read_bytes(),
            godh=_blob(self.godh),
            session=_blob(self.session),
            kernel=Path(self.kernel).read_bytes() if measured and self.kernel else None,
            initrd=Path(self.initrd).read_bytes() if measured and self.initrd else b"",
            cmdline=self.cmdline.encode(errors="surrogateescape"),
            vcpus=self.vcpus,
            cpu=cpu_signature(self.cpu) if self.policy & _ES else 0,
        )


def _blob(path: str | None) -> bytes | None:
    return None if path is None else base64.b64decode(Path(path).read_bytes())


@dataclass(slots=True, kw_only=True)
class CommandLine:
    """The parts of a command line.

    ``arguments`` are the real QEMU's, without SEV and without the monitor, which :meth:`real`
    replaces. ``monitor`` is where the client connects: the descriptor of a listening socket, or a
    path to listen on; None if there is no monitor.
    """

    arguments: list[str] = field(default_factory=list)
    monitor: int | str | None = None
    chardev: str | None = None
    """The id of the monitor's chardev; None for -qmp, which has none."""
    guest: SevGuest | None = None

    def real(self, descriptor: int) -> list[str]:
        """Return the real QEMU's arguments; its monitor listens on the socket ``descriptor``."""
        name = self.chardev or "standin"
        mine = ["-chardev", f"socket,id={name},fd={descriptor},server=on,wait=off"]
        if self.chardev is None:
            mine += ["-mon", f"chardev={name},mode=control"]
        return mine + self.arguments


def read_command_line(arguments: list[str]) -> CommandLine:
    """Return the parts of QEMU's command line.

    Raises ValueError or KeyError for options that QEMU would refuse.
    """
    line = CommandLine()
    seen: dict[str, list[str]] = {name: [] for name in _READ}
    for name, words in _options(arguments):
        if name in seen:
            seen[name].append(words[-1])
        kept = _keep(line, name, words)
        line.arguments += kept
    objects = [properties(text, "qom-type") for text in seen["object"]]
    guests = {o["id"]: o for o in objects if o.get("qom-type") == _SEV}
    machine = _joined(seen["machine"] + seen["M"], "type")
    secured = machine.get(_SECURED)
    if secured in guests:
        line.guest = _guest(guests[secured], machine, seen)
    return line


def _options(arguments: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Return the options: name (empty for other words), and the option's words."""
    words = iter(arguments)
    for word in words:
        name = word.removeprefix("-").removeprefix("-") if word.startswith("-") else ""
        yield name, [word, *([next(words, "")] if name in _READ else [])]


def _keep(line: CommandLine, name: str, words: list[str]) -> list[str]:
    """Return the words of an option that the real QEMU gets; note the monitor in ``line``."""
    value = words[-1]
    if name in ("machine", "M"):
        return [words[0], _without(value, _SECURED)]
    if name == "object" and properties(value, "qom-type").get("qom-type") == _SEV:
        return []
    if name == "qmp" and value.startswith("unix:") and line.monitor is None:
        line.monitor = value.removeprefix("unix:").partition(",")[0]
        return []
    if name == "chardev":
        backend = properties(value, "backend")
        if backend.get("id") == "charmonitor" and "fd" in backend:
            line.monitor, line.chardev = int(backend["fd"]), backend["id"]
            return []
    return words


def properties(text: str, first: str) -> dict[str, str]:
    """Return the properties in QEMU's ``a=b,c=d``, or in its JSON.

    ``first`` is the key of a first value without one.
    """
    if text.startswith("{"):
        return {key: _text(value) for key, value in json.loads(text).items()}
    found: dict[str, str] = {}
    for at, item in enumerate(re.split(r"(?<!,),(?!,)", text)):
        key, equals, value = item.replace(",,", ",").partition("=")
        if not equals:
            key, value = (first, key) if at == 0 else (key, "on")
        found[key] = value
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _joined(texts: list[str], first: str) -> dict[str, str]:
    return {key: value for text in texts for key, value in properties(text, first).items()}


def _without(text: str, key: str) -> str:
    return ",".join(part for part in text.split(",") if not part.startswith(f"{key}="))


def _guest(
    sev: Mapping[str, str], machine: Mapping[str, str], seen: Mapping[str, list[str]]
) -> SevGuest:
    def last(name: str) -> str | None:
        return seen[name][-1] if seen[name] else None

    smp = _joined(seen["smp"], "cpus")
    return SevGuest(
        policy=int(sev.get("policy", "1"), 0),
        godh=sev.get("dh-cert-file"),
        session=sev.get("session-file"),
        kernel_hashes=sev.get("kernel-hashes") in ("on", "yes", "true"),
        firmware=_flash(machine, seen) or last("bios"),
        kernel=last("kernel"),
        initrd=last("initrd"),
        cmdline=last("append") or "",
        vcpus=int(smp.get("cpus", "1")),
        cpu=properties(last("cpu") or "qemu64", "model")["model"],
    )


def _flash(machine: Mapping[str, str], seen: Mapping[str, list[str]]) -> str | None:
    """Return the file of flash unit 0, the only one that is measured; None if there is none."""
    nodes = {node["node-name"]: node for node in (properties(t, "") for t in seen["blockdev"])}
    name = machine.get("pflash0")
    while name in nodes:
        node = nodes.pop(name)
        name = node.get("file", node.get("filename"))
    drives = [properties(text, "") for text in seen["drive"]]
    flash = [drive for drive in drives if drive.get("if") == "pflash"]
    first = next((drive for drive in flash if drive.get("unit", "0") == "0"), {})
    return name or first.get("file")
