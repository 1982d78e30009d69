"""What a C compiler makes of the kernel's headers."""

import struct
import subprocess
from pathlib import Path


def compiled(source: Path, target: Path, *options: str) -> Path:
    """Compile one file; return the target."""
    subprocess.run(["gcc", "-Wall", "-Werror", *options, "-o", target, source, "-ldl"], check=True)
    return target


def c_values(header: str, folder: Path, *expressions: str) -> dict[str, int]:
    """Return the values of C expressions, with a header."""
    lines = "".join(f'    printf("%lld\\n", (long long)({one}));\n' for one in expressions)
    source = folder / "values.c"
    source.write_text(
        f"#include <{header}>\n#include <stddef.h>\n#include <stdio.h>\n"
        "#include <sys/ioctl.h>\n"
        f"int main(void)\n{{\n{lines}    return 0;\n}}\n"
    )
    program = compiled(source, folder / "values")
    ran = subprocess.run([program], capture_output=True, text=True, check=True)
    return dict(zip(expressions, map(int, ran.stdout.split()), strict=True))


def offsets(layout: str) -> list[int]:
    """Return where the fields of a layout of one character each begin, and its size."""
    return [struct.calcsize(layout[: at + 1]) for at in range(len(layout))]
