"""Facts of tables that need not exist, on a processor that was measured: what a plan is made from."""

from __future__ import annotations

from closedform.engine.rates import Rates
from closedform.fit.factors import Facts

#: Two cores with AVX2, measured: there a Gram matrix of 20000 x 2000 took 1.5 s, and conjugate gradients 2.2 s.
TWO_CORES = Rates(1.38e11, 1.38e11, 7.8e10, 2.7e10, 4.2e10, 8.3e9, 2.3e10, "measured")


def tall_facts(rows: int, columns: int, condition: float = 1.0) -> Facts:
    """Those of a plain table in memory with one target, of at least that condition number."""
    return Facts(
        n_rows=rows,
        n_columns=columns,
        n_targets=1,
        bias=False,
        ridge=False,
        weighted=False,
        rcond=1e-12,
        rcond_given=False,
        nearest=False,
        row_bytes=8.0 * columns,
        in_memory=True,
        bfloat16=False,
        rates=TWO_CORES,
        condition=condition,
    )
