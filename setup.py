"""The compiled passes are optional: where no C compiler is found the package installs without them."""

import sys

from setuptools import Extension, setup

flags = [] if sys.platform == "win32" else ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=[
        Extension(
            "closedform.numerics._kernels",
            ["src/closedform/numerics/_kernels.c"],
            extra_compile_args=flags,
            depends=["src/closedform/numerics/_passes.h", "src/closedform/numerics/_bfloat16.h"],
            optional=True,
        )
    ]
)
