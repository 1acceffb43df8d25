"""The tables of the terminal."""

from __future__ import annotations

from typing import Any

__all__ = ["memory", "plural", "quantity", "show", "show_bars", "show_sweep"]


def quantity(seconds: float) -> str:
    """Return seconds with three digits and the unit that suits them.

    Example:
        >>> quantity(0.00123), quantity(4.5), quantity(123.4), quantity(2e-6)
        ('1.23 ms', '4.5 s', '123 s', '2 us')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def plural(value: int, word: str) -> str:
    """Return a number and a word, in the plural but for one.

    Example:
        >>> plural(1, "target"), plural(20000, "row")
        ('1 target', '20,000 rows')
    """
    return f"{value:,} {word}" if value == 1 else f"{value:,} {word}s"


def memory(size: int | None) -> str:
    """Return bytes as megabytes.

    Example:
        >>> memory(12_345_678), memory(1_600_000_000), memory(None)
        ('12.3 MB', '1,600 MB', '-')
    """
    if size is None:
        return "-"
    return f"{size / 1e6:,.0f} MB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def show(result: dict[str, Any]) -> None:
    """Print one problem."""
    floor, account = result["floor"], result["closedform"]
    print(f"\n{result['problem']}")
    if account is not None:
        tried = ", ".join(f"{a['method']} {quantity(a['seconds'])}" for a in account["attempts"])
        print(f"  closedform: {account['outcome']}; {tried}")
    speed = result["machine"]
    print(
        f"  floor {quantity(floor['seconds'])}: {floor['factor']} {quantity(floor['flop_seconds'])}, one read of X "
        f"{quantity(floor['read_seconds'])} (DGEMM {speed['dgemm'] / 1e9:.0f}, SGEMM {speed['sgemm'] / 1e9:.0f} GF/s)"
    )
    print(f"  {'':<25}{'median':>9}{'ratio':>10}{'floors':>10}{'memory':>11}{'backward':>10}{'weights':>9}  runs")
    for row in result["results"]:
        if "seconds" not in row:
            print(f"  {row['peer']:<25}{'-':>9}  {row.get('failed') or row.get('not_run')}")
            continue
        ratio = f"{row['ratio']:.3g}" if "ratio" in row else "-"
        word = "" if row["verdict"] == "ok" else f"  {row['verdict'].upper()}"
        print(
            f"  {row['peer']:<25}{quantity(row['seconds']):>9}{ratio:>10}"
            f"{row['seconds'] / floor['seconds']:>10.3g}{memory(row['memory_bytes']):>11}"
            f"{row['backward_error']:>10.0e}{row['weight_error']:>9.0e}{len(row['runs']):>6}{word}"
        )


def show_sweep(sweep: dict[str, Any]) -> None:
    """Print the times along one dimension, and the exponents."""
    print(f"\nseconds against {sweep['along']}, {sweep['title']}")
    print(f"  {'':<25}" + "".join(f"{size:>10,}" for size in sweep["sizes"]) + f"{'exponent':>10}")
    for name, seconds in [*sweep["seconds"].items(), ("machine's floor", sweep["floor"])]:
        times = "".join(f"{'-' if s is None else quantity(s):>10}" for s in seconds)
        found = sweep["exponents"].get(name)
        print(f"  {name:<25}{times}{'-' if found is None else f'{found:.2f}':>10}")


def show_bars(bars: list[dict[str, Any]]) -> None:
    """Print the bars."""
    print(f"\n{'problem':<34}{'bar':<42}{'needed':>13}  {'met':<4} measured")
    for bar in bars:
        met = {True: "yes", False: "NO", None: "-"}[bar["met"]]
        print(f"{bar['problem']:<34}{bar['bar']:<42}{bar['needed']:>13}  {met:<4} {bar['measured']}")
