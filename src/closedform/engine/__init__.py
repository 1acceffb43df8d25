"""The engine: products with rows on this machine, compiled, by BLAS or by torch; threads and measured rates."""
