#: Address, whether float32, rows, columns, numbers from one row to the next.
_Table = tuple[int, bool, int, int, int]

GROUP: int
EXPANSION_GROUP: int
DEPTH: int
PART_GROUPS: int
MAX_PARTS: int
MAX_THREADS: int
SLOPE_ROUNDINGS: int
LOGISTIC: int
EXPONENTIAL: int
ROUNDED: int
SCALING: int
DIVISION: int
NORMAL_PRODUCT: int
NORMAL_SOLVE: int
MOST_LINKS: int
SOURCES: int
WIDEST: int

def residual_pass(
    x: _Table,
    targets: tuple[_Table | None, int],
    beside: tuple[_Table | None, int],
    weight: int,
    vectors: tuple[int, int, int],
    sums: tuple[int, int],
    threads: int,
    /,
) -> None: ...
def loss_pass(
    x: _Table,
    y: _Table,
    weight: int,
    vector: tuple[int, float],
    formula: tuple[int, float, float, float, float],
    lengths: tuple[int, float, float, float],
    sums: tuple[int, int],
    threads: int,
    /,
) -> float: ...
def curvature_pass(
    x: _Table, curvatures: tuple[int, int, int], vectors: tuple[int, int, int], out: int, threads: int, /
) -> None: ...
def column_squares(x: _Table, weight: int, shift: tuple[int, int], out: int, threads: int, /) -> None: ...
def gram_add(
    x: _Table,
    y: _Table | None,
    scales: tuple[int, int, int],
    order: tuple[int, int],
    factor: tuple[int, bool, bool],
    sums: tuple[int, int, int],
    spread: tuple[int, int, int, int],
    threads: int,
    /,
) -> None: ...
def expansion_pass(
    x: _Table, y: _Table, y_scale: int, weight: int, vectors: tuple[int, int], out: int, threads: int, /
) -> None: ...
def sketch_add(x: _Table, embedding: tuple[int, int, int], sketch: int, threads: int, /) -> None: ...
def cholesky(matrix: int, factor: int, n: int, single: bool, threads: int, /) -> int: ...
def is_symmetric(matrix: int, n: int, /) -> bool: ...
def triangle_solve(triangle: tuple[int, int], steps: tuple[bool, bool], vectors: int, count: int, /) -> None: ...
def matrix_product(
    matrix: tuple[int, int, int, bool], steps: tuple[bool, bool], vectors: int, out: int, count: int, /
) -> None: ...
def dominant_pair(
    chain: tuple[tuple[int, int, int, bool], ...],
    start: tuple[int, int],
    stop: tuple[int, float, float],
    out: int,
    /,
) -> float: ...
def triangles(rows: tuple[int, int, int, int], out: int, /) -> None: ...
def append_rows(x: _Table, y: _Table, out: int, /) -> bool: ...
def multiplies_bfloat16() -> bool: ...
def lanes() -> int: ...
def use_vectors(bytes: int, /) -> int: ...
