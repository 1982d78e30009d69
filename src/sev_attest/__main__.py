"""``sev-attest`` and ``python -m sev_attest``: signals are handled before anything is imported."""

try:
    from sev_attest.cli import interrupts

    interrupts.handle()
except KeyboardInterrupt:
    raise SystemExit(130) from None


def main() -> None:
    """Run ``sev-attest`` and exit."""
    from sev_attest.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
