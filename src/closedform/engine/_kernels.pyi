def residual_pass(
    x: int,
    single: int,
    m: int,
    n: int,
    ld: int,
    y: int,
    y_single: int,
    k: int,
    y_scale: int,
    weight: int,
    v: int,
    offset: int,
    q: int,
    group: int,
    out: int,
    threads: int,
    /,
) -> None: ...
def column_squares(
    x: int, single: int, m: int, n: int, ld: int, weight: int, scale: int, shift: int, out: int, threads: int, /
) -> None: ...
def gram_add(
    x: int,
    single: int,
    m: int,
    n: int,
    ld: int,
    y: int,
    y_single: int,
    k: int,
    y_scale: int,
    row_scale: int,
    x_scale: int,
    order: int,
    factor: int,
    ones: int,
    transposed: int,
    bits: int,
    gram: int,
    cross: int,
    threads: int,
    /,
) -> None: ...
def expansion_pass(
    x: int,
    single: int,
    m: int,
    n: int,
    ld: int,
    y: int,
    y_single: int,
    y_scale: int,
    weight: int,
    v: int,
    offset: int,
    q: int,
    out: int,
    threads: int,
    /,
) -> None: ...
def multiplies_bfloat16() -> bool: ...
def use_vectors(bytes: int, /) -> int: ...
def sketch_add(
    x: int, single: int, m: int, n: int, ld: int, target: int, factor: int, nonzeros: int, sketch: int, threads: int, /
) -> None: ...
