def residual_pass(
    x: int,
    single: int,
    m: int,
    n: int,
    ld: int,
    y: int,
    k: int,
    weight: int,
    v: int,
    offset: int,
    q: int,
    with_gram: int,
    out: int,
    threads: int,
    /,
) -> None: ...
def column_squares(x: int, single: int, m: int, n: int, ld: int, weight: int, out: int, threads: int, /) -> None: ...
def narrow(
    x: int, single: int, m: int, n: int, ld: int, row_scale: int, out: int, ld_out: int, threads: int, /
) -> None: ...
def sketch_add(
    x: int, single: int, m: int, n: int, ld: int, target: int, factor: int, nonzeros: int, sketch: int, threads: int, /
) -> None: ...
