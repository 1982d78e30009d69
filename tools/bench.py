"""How fast it is: each measure in turn with its reference (A B A B ...), in one table.

A line's ratio is the median over the rounds of ours to the reference's of the same round, so that a
machine that slows down for a while slows both. docs/performance.md explains each line.
"""

import argparse
import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import platform
import re
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cryptography
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from bench_core import (
    MIB,
    TOOL,
    Line,
    Run,
    Scale,
    absent,
    chain_of,
    child,
    content,
    firmware,
    in_threads,
    installed,
    timed,
)
from bench_snp import snp_lines
from sev_attest import _crypto, sev
from sev_attest.cli.main import main as command_line
from sev_attest.guest import CpuModel, Firmware, KernelHashes, VmsaProfile
from sev_attest.guest.firmware import sha256_of
from sev_attest.owner import LaunchRecord, Ledger, release
from sev_attest.owner.advisories import load
from sev_attest.owner.ledger import step
from sev_attest.owner.ledger.reading import CREATED_AS
from sev_attest.owner.ledger.sqlite import Sqlite
from sev_attest.owner.ledger.stores import store_at
from sev_attest.owner.requirements import Minimum, ReferenceValue, Requirements
from sev_attest.sev.launch import expected_measure
from sev_attest.sev.spec import Usage

if TYPE_CHECKING:
    from postgres_server import Server

POLICY = 0x5
ANY = frozenset({"*"})


# What is worked on


def bare_checks(bits: int, *, load: bool = False) -> Callable[[], None]:
    """Give the checks that a chain cannot do without; ``load`` the keys for each, or beforehand."""
    made, _ = chain_of(bits)
    chain, ask = made.export(), made.authority.ask
    links = (
        (chain.oca, chain.oca, Usage.OCA),
        (chain.pek, chain.oca, Usage.OCA),
        (chain.pek, chain.cek, Usage.CEK),
        (chain.pdh, chain.pek, Usage.PEK),
    )
    ecdsa = ec.ECDSA(hashes.SHA256())
    curve = ec.SECP384R1()
    todo: list[tuple[Any, tuple[Any, ...]]] = []
    for signed, signer, usage in links:
        point, signature = signer.public_key, signed.signature_by(usage)
        numbers = signature.ecdsa_numbers() if signature else None
        if numbers is None:
            raise RuntimeError("the simulated platform's chain does not hold")
        key = cache(ec.EllipticCurvePublicNumbers(point.x, point.y, curve).public_key)
        todo.append((key, (utils.encode_dss_signature(*numbers), signed.body, ecdsa)))
    digest: hashes.HashAlgorithm = hashes.SHA256() if bits == 2048 else hashes.SHA384()
    cek = chain.cek.signature_by(Usage.ASK)
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    public = ask.public_key
    value = cek.rsa_value(bits // 8) if cek else None
    rsa_key = cache(rsa.RSAPublicNumbers(public.exponent, public.modulus).public_key)
    todo.append((rsa_key, (value or b"", chain.cek.body, scheme, digest)))

    def check() -> None:
        for key, arguments in todo:
            if load:
                key.cache_clear()
            key().verify(*arguments)

    return check


def whole_check(bits: int) -> Callable[[], object]:
    """Give the check of a chain from its bytes, up to a root that is trusted."""
    made, data = chain_of(bits)
    roots = [made.authority.root]
    return lambda: sev.verify_chain(sev.Chain.from_bytes(data), roots=roots)


@cache
def platform_of_bench() -> sev.VerifiedChain:
    """Give a verified platform."""
    made, data = chain_of(4096)
    return sev.verify_chain(sev.Chain.from_bytes(data), roots=[made.authority.root])


def boot_files(scale: Scale, initrd: int) -> tuple[Path, Path]:
    """Write a kernel of 64 MiB (short: 4) and an initrd of ``initrd`` MiB."""
    kernel = scale.of(64, 4)
    return (
        content(scale.folder / "kernel", kernel * MIB),
        content(scale.folder / f"initrd-{initrd}", initrd * MIB),
    )


def validate_options(scale: Scale) -> list[str]:
    """Write what a launch of plain SEV needs, and give the options that validate takes of it."""
    image = firmware(scale)
    keys = {"tik": bytes(range(16)), "tek": bytes(16)}
    for name, key in keys.items():
        (scale.folder / name).write_bytes(key)
    nonce = bytes(16)
    measure = expected_measure(
        keys["tik"],
        api=(1, 55),
        build_id=24,
        policy=sev.GuestPolicy(1),
        digest=hashlib.sha256(image.read_bytes()).digest(),
        nonce=nonce,
    )
    return [
        "--measurement", _base64(measure + nonce), "--api-major", "1", "--api-minor", "55",
        "--build-id", "24", "--policy", "1", "--firmware", str(image),
        "--tik", str(scale.folder / "tik"), "--tek", str(scale.folder / "tek"),
    ]  # fmt: skip


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# The lines


def chain_lines(_scale: Scale) -> Iterator[Line]:
    """A platform's chain, from bytes to verdict."""
    for bits, shape in ((2048, "Naples"), (4096, "Rome")):
        bare, whole = bare_checks(bits), whole_check(bits)
        for slug, keys, reference in (
            ("", "loaded beforehand", bare),
            ("-loading", "loaded for it, as an unseen chain needs", bare_checks(bits, load=True)),
        ):
            yield Line(
                name=f"verify_chain-{shape.lower()}{slug}",
                what=f"verify_chain from bytes, {shape} shape",
                against=f"4 ECDSA P-384 and 1 RSA on `cryptography`, keys {keys}",
                reach=">= 0.92",
                ratio="rate",
                ours=timed(whole, 40),
                reference=timed(reference, 40),
                rounds=25,
            )
    for name, work, reach in (
        ("verify_chain-threads", whole_check(4096), ">= 1.8"),
        ("bare-threads", bare_checks(4096), "(bound)"),
    ):
        yield Line(
            name=name,
            what=f"{name.partition('-')[0].replace('bare', 'the bare checks')} from two threads",
            against="one thread",
            reach=reach,
            ratio="rate",
            ours=in_threads(work, 2, 100),
            reference=in_threads(work, 1, 100),
            rounds=15,
        )


def launch_lines(_scale: Scale) -> Iterator[Line]:
    """One launch: its session, and the verdict over its measurement."""
    verified, policy = platform_of_bench(), sev.GuestPolicy(POLICY)
    peer = _crypto.p384_point(verified.pdh.public_key)
    if peer is None:
        raise RuntimeError("the simulated platform's PDH is no point")
    numbers = peer.public_numbers()
    for slug, when, key in (
        ("", "PDH loaded beforehand", lambda: peer),
        ("-loading", "PDH loaded for it", numbers.public_key),
    ):
        yield Line(
            name=f"session{slug}",
            what="Session.create",
            against=f"P-384 key generation and ECDH, {when}",
            reach=">= 0.85",
            ratio="rate",
            ours=timed(lambda: sev.Session.create(verified, policy=policy), 100),
            reference=timed(partial(_agree, key), 100),
            rounds=25,
        )
    keys, info, digest = launch()
    tik, message = keys.tik, bytes(56)
    yield Line(
        name="verify_launch",
        what="verify_launch, digest known",
        against="hmac.digest of as many bytes",
        reach=">= 0.30",
        ratio="rate",
        unit="µs",
        ours=timed(lambda: sev.verify_launch(info, keys=keys, policy=policy, digest=digest), 4000),
        reference=timed(lambda: hmac.digest(tik, message, "sha256"), 4000),
        rounds=25,
    )


def _agree(load: Callable[[], ec.EllipticCurvePublicKey]) -> bytes:
    return ec.generate_private_key(ec.SECP384R1()).exchange(ec.ECDH(), load())


def launch() -> tuple[sev.TransportKeys, sev.LaunchInfo, bytes]:
    """Make the keys of a launch, what an honest host reports of it, and its digest."""
    keys = sev.TransportKeys(tik=secrets.token_bytes(16), tek=secrets.token_bytes(16))
    digest, nonce = bytes(32), secrets.token_bytes(16)
    measure = expected_measure(
        keys.tik,
        api=(1, 55),
        build_id=24,
        policy=sev.GuestPolicy(POLICY),
        digest=digest,
        nonce=nonce,
    )
    info = sev.LaunchInfo(
        measurement=measure + nonce, api_major=1, api_minor=55, build_id=24, policy=POLICY
    )
    return keys, info, digest


def digest_lines(scale: Scale) -> Iterator[Line]:
    """The launch digest: large files, and many vCPUs."""
    image = firmware(scale)
    kernel, initrd = boot_files(scale, scale.of(512, 16))
    parts = (image, kernel, initrd)

    def one_core() -> None:
        for path in parts:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

    def whole() -> bytes:
        return sev.launch_digest(image, kernel=kernel, initrd=initrd, cmdline="console=ttyS0")

    files = f"4 MiB firmware, {scale.of(64, 4)} MiB kernel, {scale.of(512, 16)} MiB initrd"
    yield Line(
        name="launch_digest",
        what=f"launch_digest of {files}",
        against="hashlib.sha256 over the same files, one core",
        reach=">= 1.4",
        ratio="rate",
        ours=timed(whole),
        reference=timed(one_core),
    )
    yield Line(
        name="launch_digest-bound",
        what="the initrd's SHA-256 alone, from memory",
        against="hashlib.sha256 over the same files, one core",
        reach="(bound)",
        ratio="rate",
        ours=timed(partial(hashlib.sha256, initrd.read_bytes())),
        reference=timed(one_core),
    )
    even = content(scale.folder / "even", kernel.stat().st_size)
    yield Line(
        name="launch_digest-even",
        what=f"kernel and initrd of {scale.of(64, 4)} MiB each",
        against="hashlib.sha256 over the same files, one core",
        reach="(by the way)",
        ratio="rate",
        ours=timed(lambda: KernelHashes.of(kernel, even)),
        reference=timed(lambda: [_file_digest(path) for path in (kernel, even)]),
    )
    small = content(scale.folder / "initrd-small", MIB)
    measure = [*TOOL, "measure", "--firmware", str(image), "--kernel", str(kernel), "--initrd"]
    yield Line(
        name="launch_digest-memory",
        what=f"peak memory of `measure` with a {scale.of(512, 16)} MiB initrd",
        against="with a 1 MiB initrd",
        reach="<= 8 MiB more",
        ratio="more",
        unit="MiB",
        ours=child([*measure, str(initrd)], memory=True),
        reference=child([*measure, str(small)], memory=True),
        rounds=5,
    )
    guest = es_guest(image)
    yield Line(
        name="digests",
        what="digests for 1 to 512 vCPUs",
        against="the digest for 512 vCPUs",
        reach="<= 1.5",
        ratio="share",
        ours=timed(lambda: guest.digests(512), 5),
        reference=timed(lambda: one_digest(guest, 512), 5),
        rounds=25,
    )


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def es_guest(image: Path) -> sev.MeasuredGuest:
    """Describe an SEV-ES guest."""
    found = Firmware.read(image)
    profile = VmsaProfile(cpu=CpuModel.named("EPYC-Milan"))
    return sev.MeasuredGuest(firmware=found, vmsa=profile.pages(found.reset_address()))


def one_digest(guest: sev.MeasuredGuest, vcpus: int) -> bytes:
    """Hash an SEV-ES guest for one number of vCPUs, in the plainest way."""
    digest = guest.firmware.hasher()
    for page in guest.vmsa.for_vcpus(vcpus) if guest.vmsa else ():
        digest.update(page)
    return digest.digest()


def tool_lines(scale: Scale) -> Iterator[Line]:
    """Whole processes, beside those of other tools."""
    options = validate_options(scale)
    bare = [*TOOL, "validate", *options, "--ledger", "none"]
    kept = [*TOOL, "validate", *options, "--ledger", str(scale.folder / "ledger.sqlite3")]
    floor = [sys.executable, "-c", "import click, hashlib"]
    peer = virt_qemu_sev_validate(options)
    processes = scale.of(41, 3)
    for how, command in (("no ledger", bare), ("with its ledger", kept)):
        slug = "" if command is bare else "-ledger"
        if peer:
            for unit, reach in (("ms", "<= 0.65"), ("MiB", "<= 0.60")):
                memory = unit == "MiB"
                yield Line(
                    name=f"validate{slug}-peer{'-memory' if memory else ''}",
                    what=f"`validate`, {how}{', peak memory' if memory else ''}",
                    against="virt-qemu-sev-validate, same inputs",
                    reach=reach,
                    ratio="share",
                    unit=unit,
                    ours=child(command, memory=memory),
                    reference=child(peer, memory=memory),
                    rounds=3 if memory else processes,
                )
        yield Line(
            name=f"validate{slug}-floor",
            what=f"`validate`, {how}",
            against="python -c 'import click, hashlib'",
            reach="<= 1.25",
            ratio="share",
            ours=child(command),
            reference=child(floor),
            rounds=processes,
        )
    image = str(firmware(scale))
    if snp := sev_snp_measure(image):
        yield Line(
            name="measure-peer",
            what="`measure`, SEV-ES, 4 vCPUs",
            against="sev-snp-measure --mode seves, same inputs",
            reach="<= 1.3",
            ratio="share",
            ours=child([*TOOL, "measure", "--firmware", image, "--policy", "5", "--num-cpus", "4",
                        "--cpu-model-name", "EPYC-Milan"]),
            reference=child(snp),
            rounds=processes,
        )  # fmt: skip


PEERS = ("virt-qemu-sev-validate", "sev-snp-measure")


def virt_qemu_sev_validate(options: list[str]) -> list[str]:
    """Find libvirt's tool, with an interpreter that it runs under; empty if there is none."""
    path = shutil.which(PEERS[0])
    candidates = [[path], ["/usr/bin/python3", path]] if path else []
    arguments = [*options, "--insecure"]
    return installed([[*candidate, *arguments] for candidate in candidates], PEERS[0])


def sev_snp_measure(image: str) -> list[str]:
    """Find AMD's and IBM's tool; empty if there is none."""
    path = Path(sys.executable).parent / PEERS[1]
    arguments = ["--mode", "seves", "--vcpus", "4", "--vcpu-type", "EPYC-Milan", "--ovmf", image]
    return installed([[sys.executable, str(path), *arguments]], PEERS[1])


def ledger_lines(scale: Scale) -> Iterator[Line]:
    """The release of a secret, with its transaction."""
    rounds, times = scale.of(15, 3), scale.of(100, 10)
    ledger = Ledger.open(scale.folder / "released.sqlite3")
    record = LaunchRecord.of(
        sev.Session.create(platform_of_bench(), policy=sev.GuestPolicy(POLICY)),
        "bench",
        datetime.now(UTC),
    )
    record = replace(record, root="AMD Milan", generation="milan")
    _, _, digest = launch()
    demands = Requirements(
        generations=ANY, ceks=ANY, platform_ids=ANY, pdhs=ANY,
        minimum={"milan": Minimum(api=(1, 55), build=24)},
        acknowledged=frozenset(advisory.id for advisory in load()),
        launches=(ReferenceValue(name="bench", digests={digest: ""}),),
    )  # fmt: skip
    ready: list[Callable[[], object]] = []

    def prepare() -> None:
        for _ in range(times + 1):
            keys, info, _ = launch()
            session = keys.session_id
            ledger.create(session)
            ready.append(partial(
                release, info, keys=keys, requirements=demands, ledger=ledger, digest=digest,
                record=replace(record, session_id=session).signed(keys),
                secrets={"luks-key": bytes(32)},
            ))  # fmt: skip

    def ours() -> float:
        prepare()
        ready.pop()()
        return timed(lambda: ready.pop()(), times)()  # noqa: PLW0108 - another one each time

    alone = Bare(str(scale.folder / "bare.sqlite3"))

    def reference() -> float:
        sessions = alone.prepare(times + 1)
        alone.release(sessions.pop())
        return timed(lambda: alone.release(sessions.pop()), times)()

    yield Line(
        name="release",
        what="release() with a SQLite ledger",
        against="its statements alone, synced",
        reach=">= 0.5",
        ratio="rate",
        ours=ours,
        reference=reference,
        rounds=rounds,
    )


class Bare:
    """The statements of a release, in a synced transaction of its own under the lock of the log.

    Each thread has a connection, and nothing is checked.
    """

    def __init__(self, place: str) -> None:
        """Use the tables of a ledger of its own."""
        self._ledger = Ledger.open(place)
        self._store = store_at(place, TIMEOUT)
        self._place = place
        self._threads = threading.local()

    def prepare(self, count: int) -> list[str]:
        """Open as many sessions."""
        return new_sessions(self._ledger, count)

    def release(self, session: str) -> None:
        """Bind and release a session."""
        run, text, at = self._runner(), "x" * 64, "2026-01-01T00:00:00+00:00"
        run("")
        count = run(step.LOOK, (0, session)).fetchone()[0]
        run(CREATED_AS, (session,)).fetchone()
        for number, kind in enumerate(("measured", "released"), start=count + 1):
            run(step.INSERT_EVENT, (number, at, session, kind, text, text, text))
        run(step.UPDATE_SESSION, ("released", at, text, "", 0, session, "created"))
        run(step.UPDATE_HEAD, (count + 2, text, count))
        run("COMMIT")

    def _runner(self) -> Callable[..., Any]:
        """Give what runs a statement on this thread's connection; an empty one begins."""
        if not hasattr(self._threads, "run"):
            server = not isinstance(self._store, Sqlite)
            begin = "BEGIN; LOCK TABLE sev_attest_ledger IN EXCLUSIVE MODE"
            statements = {"": begin if server else "BEGIN IMMEDIATE", "COMMIT": "COMMIT"}
            for sql in (
                step.LOOK, CREATED_AS, step.INSERT_EVENT, step.UPDATE_SESSION, step.UPDATE_HEAD
            ):  # fmt: skip
                named = sql.format_map(self._store.names)
                statements[sql] = named.replace("?", "%s") if server else named
            connection = self._connect()

            def run(sql: str, values: tuple[object, ...] = ()) -> Any:
                return connection.execute(statements[sql], values)

            self._threads.run = run
        found: Callable[..., Any] = self._threads.run
        return found

    def _connect(self) -> Any:
        if isinstance(self._store, Sqlite):
            connection = sqlite3.connect(self._place, timeout=TIMEOUT, isolation_level=None)
            connection.execute("PRAGMA synchronous = FULL")
            return connection
        import psycopg

        return psycopg.connect(self._place, autocommit=True)


TIMEOUT = 60.0
MEASUREMENT = bytes(48)


def new_sessions(ledger: Ledger, count: int) -> list[str]:
    """Create as many sessions in a ledger."""
    made = [secrets.token_hex(32) for _ in range(count)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ledger.create, made))
    return made


Releases = Callable[[Callable[[str], object], list[str]], float]
"""Releases sessions with a function; gives the seconds for one, all together."""


def crowd(pool: ThreadPoolExecutor, threads: int) -> Releases:
    """Release from the threads of a pool, all at once; they stay, and so do their connections."""

    def run(release: Callable[[str], object], sessions: list[str]) -> float:
        start = threading.Barrier(threads + 1)

        def each(part: list[str]) -> None:
            start.wait()
            for session in part:
                release(session)

        running = [pool.submit(each, sessions[number::threads]) for number in range(threads)]
        start.wait()
        begin = time.perf_counter()
        for one in running:
            one.result()
        return (time.perf_counter() - begin) / len(sessions)

    return run


def crowds(processes: int, threads: int) -> Releases:
    """Release from the threads of several processes, all at once, once each has a connection."""

    def run(release: Callable[[str], object], sessions: list[str]) -> float:
        context = multiprocessing.get_context("fork")
        start = context.Barrier(processes + 1)

        def each(part: list[str]) -> None:
            with ThreadPoolExecutor(threads) as pool:
                work = crowd(pool, threads)
                work(release, part[:threads])
                start.wait()
                work(release, part[threads:])

        running = [
            context.Process(target=each, args=(sessions[number::processes],))
            for number in range(processes)
        ]
        for one in running:
            one.start()
        start.wait(TIMEOUT)
        begin = time.perf_counter()
        for one in running:
            one.join()
            if one.exitcode:
                raise RuntimeError(f"a process that released ended with {one.exitcode}")
        return (time.perf_counter() - begin) / (len(sessions) - processes * threads)

    return run


def throughput_lines(scale: Scale) -> Iterator[Line]:
    """Many releases at once, beside a synced transaction for each of them."""
    crowded = (("1", 1), ("8", 8), ("32", 32))
    names = ("ours", "bare")
    places = [str(scale.folder / f"many-{name}.sqlite3") for name in names]
    for slug, threads in crowded:
        with ThreadPoolExecutor(threads) as pool:
            yield throughput(scale, "SQLite", slug, places, crowd(pool, threads))
    for database, settings in SYNCS.items():
        with ExitStack() as stack:
            server = postgresql(stack, *settings)
            if server is None:
                absent.append("a PostgreSQL server")
                return
            places = [server.new_database() for _ in names]
            for slug, threads in crowded:
                with ThreadPoolExecutor(threads) as pool:
                    yield throughput(scale, database, slug, places, crowd(pool, threads))
            yield throughput(scale, database, "4 x 8", places, crowds(4, 8))


SYNCS: dict[str, tuple[str, ...]] = {
    "PostgreSQL": (),
    # The server waits so long whenever it flushes its log, as for a disk or a standby.
    "PostgreSQL, sync of 4 ms": ("commit_delay=4000", "commit_siblings=0"),
}
"""Databases of the lines about throughput, with the settings of their server."""


def throughput(scale: Scale, database: str, slug: str, places: list[str], run: Releases) -> Line:
    """Compare the releases of a crowd on two ledgers of the same database."""
    ledger, bare = Ledger.open(places[0], timeout=TIMEOUT), Bare(places[1])
    count = scale.of(512, 64)
    who = f"{slug} thread{'s' * (slug != '1')}".replace(" x ", " processes of ")
    return Line(
        name=f"throughput-{re.sub('[ ,]+', '-', database.lower())}-{slug.replace(' ', '')}",
        what=f"`Ledger.release`, {database}, {who}",
        against="a synced transaction for each, its statements alone",
        reach=REACHES[slug],
        ratio="rate",
        ours=lambda: run(
            lambda session: ledger.release(session, MEASUREMENT), new_sessions(ledger, count)
        ),
        reference=lambda: run(bare.release, bare.prepare(count)),
        rounds=scale.of(9, 1),
    )


REACHES = {"1": ">= 0.5", "8": ">= 2", "32": ">= 2", "4 x 8": ">= 2"}


def postgresql(stack: ExitStack, *settings: str) -> "Server | None":
    """Start a server as the live tests do, with settings; None if none is installed."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "owner"))
    from postgres_server import Server, binaries

    programs = binaries()
    if programs is None:
        return None
    # A socket's name is short, and the server may run as another user.
    server = Server(programs, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    server.start(*settings)
    stack.callback(server.stop)
    return server


def search_lines(scale: Scale) -> Iterator[Line]:
    """The search for what explains a mismatch, on its own."""
    options = validate_options(scale)
    options[options.index("--policy") + 1] = str(POLICY)
    options[options.index("--measurement") + 1] = _base64(secrets.token_bytes(48))
    command = [
        *TOOL, "validate", *options, "--num-cpus", "1", "--cpu-model-name", "EPYC-Milan",
        "--ledger", "none", "--diagnose-budget", "60",
    ]  # fmt: skip

    def search() -> float:
        begin = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
        if ran.returncode != 1 or b"hint: " not in ran.stderr:
            raise RuntimeError(f"the search ended with {ran.returncode}: {ran.stderr.decode()}")
        return time.perf_counter() - begin

    yield Line(
        name="diagnosis",
        what="`validate` of a mismatch: 512 vCPUs x CPU models x profiles, 4 MiB firmware",
        against="5 s",
        reach="<= 1",
        ratio="share",
        unit="s",
        ours=search,
        reference=lambda: 5.0,
        rounds=scale.of(5, 1),
    )


def growth_lines(scale: Scale) -> Iterator[Line]:
    """How it grows: ten and a hundred times the work, per piece of it."""
    chains, vcpus, initrd = scale.of(20, 2), scale.of(40, 4), scale.of(5, 1)
    made, data = chain_of(4096)
    root = scale.folder / "root"
    root.write_bytes(made.authority.ark.to_bytes())
    folder = scale.folder / "chains"
    folder.mkdir()
    names = [str(folder / str(number)) for number in range(100 * chains)]
    for name in names:
        Path(name).write_bytes(data)

    def verify(count: int) -> Run:
        # In this process: a start-up for each would hide how the work grows.
        command = ["verify", "--each", "--quiet", "--trust-root", str(root), *names[:count]]
        return timed(lambda: succeed(command))

    guest = es_guest(firmware(scale))

    def digest(mib: int) -> Run:
        path = content(scale.folder / f"initrd-{mib}", mib * MIB)
        return timed(lambda: sha256_of(path))

    work: tuple[tuple[str, str, int, Callable[[int], Run]], ...] = (
        ("chains", "chains in one call of `verify --each`", chains, verify),
        ("vcpus", "vCPUs, all digests", vcpus, lambda n: timed(lambda: guest.digests(n))),
        ("initrd", "MiB of initrd", initrd, digest),
    )
    for slug, what, base, run in work:
        for times in (10, 100):
            yield Line(
                name=f"grows-{slug}-{times}",
                what=f"{base * times} {what}",
                against=f"{times} x the time for {base}",
                reach="<= 1",
                ratio="share",
                ours=run(base * times),
                reference=_times(run(base), times),
                rounds=scale.of(7, 2),
            )


def succeed(command: list[str]) -> None:
    """Run a command line in this process; raises RuntimeError if it fails."""
    try:
        command_line(command)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{command[:2]} ended with {ended.code}") from None


def _times(run: Run, times: int) -> Run:
    return lambda: run() * times


GROUPS = (
    chain_lines,
    launch_lines,
    digest_lines,
    tool_lines,
    ledger_lines,
    throughput_lines,
    search_lines,
    growth_lines,
    snp_lines,
)


# The table

UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "MiB": 1.0}


def measured(line: Line, *, short: bool) -> dict[str, Any]:
    """Run both sides of a line in turn, and sum up."""
    line.ours()  # once each to warm up
    line.reference()
    pairs = []
    for number in range(min(line.rounds, 3) if short else line.rounds):
        # Whoever goes second may find a warmer cache: they take turns in that too.
        sides = (line.ours, line.reference) if number % 2 == 0 else (line.reference, line.ours)
        first, second = sides[0](), sides[1]()
        pairs.append((first, second) if number % 2 == 0 else (second, first))
    sums = {
        "rate": lambda ours, reference: reference / ours,
        "share": lambda ours, reference: ours / reference,
        "more": lambda ours, reference: ours - reference,
    }
    ratios = sorted(sums[line.ratio](*pair) for pair in pairs)
    factor = UNITS[line.unit]
    return {
        "name": line.name,
        "what": line.what,
        "against": line.against,
        "unit": line.unit,
        "ours": statistics.median(ours for ours, _ in pairs) * factor,
        "reference": statistics.median(reference for _, reference in pairs) * factor,
        "ratio": statistics.median(ratios),
        "spread": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "rounds": len(ratios),
        "reach": line.reach,
    }


def row(found: dict[str, Any]) -> str:
    """Write one line of the table."""
    low, high = found["spread"]
    return (
        f"| {found['what']} | {found['ours']:.4g} {found['unit']} | {found['against']} | "
        f"{found['reference']:.4g} {found['unit']} | **{found['ratio']:.2f}** | "
        f"{low:.2f} - {high:.2f} | {found['reach']} |"
    )


def machine() -> dict[str, object]:
    """Name what all this ran on."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cryptography": cryptography.__version__,
        "openssl": backend.openssl_version_text(),
        "sqlite": sqlite3.sqlite_version,
    }


@contextmanager
def scale_of(*, short: bool) -> Iterator[Scale]:
    """Work in a folder that is gone afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sev-attest-bench-"))
        yield Scale(folder=Path(folder), short=short)


def main() -> None:
    """Run the lines that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="small inputs, few rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    parser.add_argument("--only", metavar="NAME", default="", help="lines whose name begins so")
    given = parser.parse_args()
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print("\n| what | median | against | median | ratio | quartiles | reach |")
    print("|---|---|---|---|---|---|---|", flush=True)
    found = []
    with scale_of(short=given.short) as scale:
        for group in GROUPS:
            for line in group(scale):
                if line.name.startswith(given.only):
                    found.append(measured(line, short=given.short))
                    print(row(found[-1]), flush=True)
    for name in absent:
        print(f"\nabsent: {name}")
    if given.json:
        document = {
            "schema": "sev-attest/bench/1",
            "short": given.short,
            "machine": facts,
            "lines": found,
            "absent": absent,
        }
        Path(given.json).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
