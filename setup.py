"""The compiled passes are optional: where no C compiler is found the package installs without them."""

import sys

from setuptools import Extension, setup

flags = [] if sys.platform == "win32" else ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=[
        Extension(
            "closedform.engine._kernels",
            ["src/closedform/engine/_kernels.c"],
            extra_compile_args=flags,
            depends=["src/closedform/engine/_passes.h", "src/closedform/engine/_bfloat16.h"],
            optional=True,
        )
    ]
)
