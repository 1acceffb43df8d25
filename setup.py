"""The compiled passes are optional: where no C compiler is found the package installs without them."""

import hashlib
import sys
from pathlib import Path

from setuptools import Extension, setup

engine = Path("src/closedform/engine")
included = sorted(path for end in ("h", "inc") for path in engine.glob(f"_*.{end}"))
flags = [] if sys.platform == "win32" else ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]

# Speeds measured with other loops do not hold: a number of all they are made of stands in the name of the file.
made_of = hashlib.sha256(" ".join(flags).encode())
for path in [engine / "_loops.c", *included]:
    made_of.update(path.read_bytes())

setup(
    ext_modules=[
        Extension(
            "closedform.engine._loops",
            [str(engine / "_loops.c")],
            define_macros=[("SOURCES", "0x" + made_of.hexdigest()[:7])],
            extra_compile_args=flags,
            depends=[str(path) for path in included],
            optional=True,
        )
    ]
)
