"""``sev-attest`` and ``python -m sev_attest``: signals are handled before anything is imported."""

try:
    import gc

    # Starting makes no cycles worth looking for; a command that runs on is still collected.
    gc.set_threshold(100_000)

    from sev_attest.cli import interrupts

    interrupts.handle()

    from sev_attest._lazy import import_when_used

    # click tidies help texts with inspect, which only --help shows: 4 ms of some 40 (from Python
    # 3.12 on, only where no dataclass is made). logging, which pyasn1 imports, shows exceptions
    # with traceback: 2 ms.
    import_when_used("inspect")
    import_when_used("traceback")
except KeyboardInterrupt:
    raise SystemExit(130) from None


def main() -> None:
    """Run ``sev-attest`` and exit, without freeing memory first: that takes as long as a check.

    Exit functions run, and output is written. Every command has ended its own threads by now.
    """
    import atexit
    import os
    import sys
    from contextlib import suppress

    from sev_attest.cli.main import main as run

    try:
        run()
    except SystemExit as ended:
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit() leaves them out
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # exits.run() has told already
                stream.flush()
        os._exit(ended.code)  # type: ignore[arg-type] # exits.run() returns a number


if __name__ == "__main__":
    main()
