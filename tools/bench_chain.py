"""The lines of the benchmark for a platform's chain, and for one launch."""

import hmac
import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from bench_core import (
    POLICY,
    TOOL,
    Line,
    Run,
    Scale,
    chain_of,
    child,
    in_threads,
    launch,
    timed,
    verified,
)
from sev_attest import _crypto, sev
from sev_attest.sev.spec import Usage


def bare_checks(bits: int, *, load: bool = False) -> Callable[[], None]:
    """Return the checks that a chain cannot do without; ``load`` the keys each time, or before."""
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
    """Return the check of a chain from its bytes, up to a root that is trusted."""
    made, data = chain_of(bits)
    roots = [made.authority.root]
    return lambda: sev.verify_chain(sev.Chain.from_bytes(data), roots=roots)


def chain_lines(scale: Scale) -> Iterator[Line]:
    """A platform's chain, from bytes to verdict."""
    for bits, shape in ((2048, "Naples"), (4096, "Rome")):
        bare, whole = bare_checks(bits), whole_check(bits)
        loading = bare_checks(bits, load=True)
        for slug, keys, reference, reach in (
            ("", "loaded beforehand", bare, ">= 0.88"),
            ("-loading", "loaded for it, as an unseen chain needs", loading, ">= 0.92"),
        ):
            yield Line(
                name=f"verify_chain-{shape.lower()}{slug}",
                what=f"verify_chain from bytes, {shape} shape",
                against=f"4 ECDSA P-384 and 1 RSA on `cryptography`, keys {keys}",
                reach=reach,
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
    yield from _many(scale)


def _many(scale: Scale) -> Iterator[Line]:
    """Many chains in one call, beside the bare checks on as many processes."""
    count, processes = scale.of(1000, 40), 2
    made, data = chain_of(4096)
    folder = scale.folder / "many"
    folder.mkdir()
    names = [str(folder / f"{number}.chain") for number in range(count)]
    for name in names:
        Path(name).write_bytes(data)
    root = scale.folder / "many.root"
    # With its ASK, as AMD's own roots have it: it is not verified again for each chain.
    root.write_bytes(made.authority.ask.to_bytes() + made.authority.ark.to_bytes())
    command = [*TOOL, "verify", "--each", "--quiet", "--trust-root", str(root), *names]
    yield Line(
        name="verify-each",
        what=f"`verify --each`, {count} chains, the whole process",
        against=f"the bare checks on {processes} processes, keys loaded for each",
        reach=">= 0.85",
        ratio="rate",
        ours=child(command),
        reference=_on_processes(bare_checks(4096, load=True), processes, count),
        rounds=scale.of(9, 2),
    )


def _on_processes(work: Callable[[], None], processes: int, times: int) -> Run:
    """Time work that several processes share."""
    context = multiprocessing.get_context("fork")

    def part() -> None:
        for _ in range(times // processes):
            work()

    def run() -> float:
        begin = time.perf_counter()
        running = [context.Process(target=part) for _ in range(processes)]
        for one in running:
            one.start()
        for one in running:
            one.join()
        return time.perf_counter() - begin

    return run


def launch_lines(_scale: Scale) -> Iterator[Line]:
    """One launch: its session, and the verdict over its measurement."""
    platform, policy = verified(), sev.GuestPolicy(POLICY)
    peer = _crypto.p384_point(platform.pdh.public_key)
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
            ours=timed(lambda: sev.Session.create(platform, policy=policy), 100),
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
