"""What pyproject.toml cannot say: the compiled passes, which are optional, and a README whose links work anywhere."""

import hashlib
import os
import re
import sys
import tomllib
from pathlib import Path

from setuptools import Extension, setup

engine = Path("src/closedform/engine")
included = sorted(path for end in ("h", "inc") for path in engine.glob(f"_*.{end}"))
flags = [] if sys.platform == "win32" else ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]
if re.search(r"(^|\s)-O", os.environ.get("CFLAGS", "")):
    flags = [flag for flag in flags if flag != "-O3"]  # the level that is asked for holds

# Speeds measured with other loops do not hold: a number of all they are made of stands in the name of the file.
made_of = hashlib.sha256(" ".join(flags).encode())
for path in [engine / "_loops.c", *included]:
    made_of.update(path.read_bytes())


def absolute(readme):
    """Return the README with links that the package index can follow: relative ones lead into the repository."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    home = project["urls"]["Repository"]
    images = home.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
    readme = re.sub(r"(!\[[^]]*\]\()(?!\w+:|#)", rf"\g<1>{images}", readme)
    return re.sub(r"(?<!!)(\[[^]]*\]\()(?!\w+:|#)", rf"\g<1>{home}/blob/main/", readme)


setup(
    long_description=absolute(Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            "closedform.engine._loops",
            [str(engine / "_loops.c")],
            define_macros=[("SOURCES", "0x" + made_of.hexdigest()[:7])],
            extra_compile_args=flags,
            depends=[str(path) for path in included],
            optional=True,
        )
    ],
)
