"""How a probe is laid out: its layers, its classes, its confusions and how far its scores can be believed."""

from __future__ import annotations

from closedform.fit.convex import ConvexSolution
from closedform.probing.record import LayerProbe, ProbeRecord
from closedform.probing.scores import ClassScores, NumberScores
from closedform.report.charts import LEFT, RIGHT, Chart, Scale, Series
from closedform.report.document import Block, Column, Document, Facts, Notes, Paragraph, Section, Table
from closedform.report.palette import ink_name
from closedform.words.numbers import number, plural

__all__ = ["chart_of", "page_of", "summary_of"]

#: Bottom and top of the plot, in user units.
_PLOT = (330.0, 14.0)
#: Height of the drawing, its axis included.
_HEIGHT = 372.0
#: Classes that a page lists, the worst ones first.
_CLASSES = 25
#: Classes that a summary lists.
_FEW_CLASSES = 8
#: The ends of an interval, in order.
_ENDS = ("lower", "upper")
#: Confusions that are listed, the most frequent ones first.
_CONFUSIONS = 10


def summary_of(probe: ProbeRecord) -> Document:
    """Return what fits a screen."""
    blocks: list[Block] = [Paragraph(probe.sentence), _layers_table(probe)]
    scores = probe.best.scores
    if isinstance(scores, ClassScores):
        blocks += [_class_table(probe, scores, _FEW_CLASSES), *_confusions(probe, scores)]
    if probe.notes:
        blocks.append(Notes(probe.notes))
    return Document("Linear probe", _headline(probe), (Section(_headline(probe), tuple(blocks), tone="headline"),))


def page_of(probe: ProbeRecord) -> Document:
    """Return all there is to say."""
    facts = Facts(
        (
            ("training rows", f"{probe.train_rows:,}"),
            ("test rows", f"{probe.test_rows:,}"),
            ("classes" if probe.classes else "targets", str(probe.solution.weight.shape[0])),
            _certainty(probe),
        )
    )
    lead = Section(_headline(probe), (Paragraph(probe.sentence), facts), tone="headline")
    blocks: tuple[Block, ...] = (_layers_table(probe),)
    if len(probe.layers) > 1:
        blocks = (chart_of(probe), *blocks)
    sections = [Section("Layers", blocks, key="layers")]

    scores = probe.best.scores
    if isinstance(scores, ClassScores):
        classes = (_class_table(probe, scores, _CLASSES), *_confusions(probe, scores))
        sections.append(Section("Classes", classes, key="classes"))
        sections.append(Section("Calibration", _calibration_blocks(scores), key="calibration"))
    sections.append(probe.path.section())
    if probe.notes:
        sections.append(Section("Notes", (Notes(probe.notes),), key="notes"))
    return Document("Linear probe", _headline(probe), (lead,), tuple(sections), data={"probe": probe.to_dict()})


def _certainty(probe: ProbeRecord) -> tuple[str, str]:
    if isinstance(probe.solution, ConvexSolution):
        return "relative gap", number(probe.solution.certificate.relative_gap)
    return "backward error", number(probe.solution.certificate.backward_error)


def chart_of(probe: ProbeRecord) -> Chart:
    """Accuracy or R^2 of each layer in hundredths, with the ends of its interval."""
    places = [float(place) for place in range(len(probe.layers))]
    title = "accuracy on the test rows, %" if probe.classes else "R^2 on the test rows, %"
    lines = [("probe", [100 * _worth(layer) for layer in probe.layers])]
    intervals = [layer.scores.interval for layer in probe.layers if isinstance(layer.scores, ClassScores)]
    if intervals:
        lines += [
            (f"{end} end of the interval", [100 * pair[at] for pair in intervals]) for at, end in enumerate(_ENDS)
        ]
    values = [value for _, line in lines for value in line]
    return Chart(
        key="layers",
        title="What each layer tells",
        x_title="layer, in the order given",
        y_title=title,
        x=Scale(0.0, max(places[-1], 1.0), LEFT, RIGHT, logarithmic=False),
        y=Scale(max(min(values) - 5, -100.0), min(max(values) + 5, 100.0), *_PLOT, logarithmic=False),
        height=_HEIGHT,
        series=tuple(Series(name, ink_name(place), places, line) for place, (name, line) in enumerate(lines)),
    )


def _worth(layer: LayerProbe) -> float:
    if isinstance(layer.scores, NumberScores):
        return sum(layer.scores.r_squared) / len(layer.scores.r_squared)
    return layer.scores.accuracy


def _headline(probe: ProbeRecord) -> str:
    of_rows = f"on {plural(probe.test_rows, 'test row')}"
    layer = ""
    if len(probe.layers) > 1:
        word = "" if probe.best.name.startswith("layer") else "layer "
        layer = f" ({word}{probe.best.name}, best of {len(probe.layers)} by {_way(probe)})"
    if probe.accuracy is None or probe.interval is None:
        return f"R^2 {_worth(probe.best):.4g} {of_rows}{layer}"
    low, high = probe.interval
    return f"accuracy {probe.accuracy:.2%} ({low:.2%} to {high:.2%}) {of_rows}{layer}"


def _way(probe: ProbeRecord) -> str:
    return "leave-one-out" if probe.path.select == "loo" else "left-out"


def _layers_table(probe: ProbeRecord) -> Table:
    best = probe.best
    titles = ["layer", "features", "l2", f"{_way(probe)} {'MSE' if probe.path.select == 'loo' else 'cross-entropy'}"]
    if probe.classes:
        titles += ["accuracy", "from", "to", "balanced"] + ["top 5"] * (len(probe.classes) > 5)
    else:
        titles += ["R^2", "test MSE", "test MAE"]
    return Table(
        columns=tuple(Column(title, numeric=title != "layer") for title in titles),
        rows=tuple(_cells(layer) for layer in probe.layers),
        kinds=tuple("emphasised" if layer is best and len(probe.layers) > 1 else "" for layer in probe.layers),
    )


def _cells(layer: LayerProbe) -> tuple[str, ...]:
    strengths = sorted(set(layer.path.l2.tolist()))
    chosen = number(strengths[0]) if len(strengths) == 1 else f"{number(strengths[0])} to {number(strengths[-1])}"
    cells = (layer.name, str(layer.solution.weight.shape[1]), chosen, number(layer.left_out_error))
    scores = layer.scores
    if isinstance(scores, NumberScores):
        return (*cells, f"{_worth(layer):.4g}", number(_mean(scores.mse)), number(_mean(scores.mae)))
    shares = (scores.accuracy, *scores.interval, scores.balanced_accuracy)
    top = () if scores.top5 is None else (f"{scores.top5:.2%}",)
    return (*cells, *(f"{share:.2%}" for share in shares), *top)


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _class_table(probe: ProbeRecord, scores: ClassScores, most: int) -> Table:
    counts, recall, precision = scores.confusion.sum(1).tolist(), scores.recall.tolist(), scores.precision.tolist()
    present = [place for place in range(len(counts)) if counts[place]]
    worst = sorted(present, key=lambda place: recall[place])[:most]
    rest = f", the worst {most} of {len(present)}" if len(present) > most else ""
    return Table(
        columns=(Column("class", numeric=False), Column("test rows"), Column("right"), Column("precision")),
        rows=tuple(
            (str(probe.classes[place]), str(counts[place]), f"{recall[place]:.1%}", _share(precision[place]))
            for place in worst
        ),
        title=f"Classes{rest}",
    )


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.1%}"


def _confusions(probe: ProbeRecord, scores: ClassScores) -> tuple[Block, ...]:
    """Return the confusions that are most frequent, where there are any."""
    wrong = scores.confusion.clone().fill_diagonal_(0)
    counts, places = wrong.flatten().topk(min(_CONFUSIONS, wrong.numel()))
    found = [(int(count), int(place)) for count, place in zip(counts, places, strict=True) if count]
    if not found:
        return ()
    names, width = [str(name) for name in probe.classes], wrong.shape[1]
    rows = tuple((names[place // width], names[place % width], str(count)) for count, place in found)
    columns = (Column("class", numeric=False), Column("taken for", numeric=False), Column("rows"))
    return (Table(columns, rows, title="Most frequent confusions"),)


def _calibration_blocks(scores: ClassScores) -> tuple[Block, ...]:
    calibration = scores.calibration
    width = 1 / len(calibration.rows)
    rows = tuple(
        (f"{place * width:.1f} to {(place + 1) * width:.1f}", f"{count:,}", _share(score), _share(right))
        for place, (count, score, right) in enumerate(
            zip(calibration.rows, calibration.score, calibration.accuracy, strict=True)
        )
        if count
    )
    columns = (Column("best score", numeric=False), Column("test rows"), Column("mean score"), Column("right"))
    said = f"expected calibration error {calibration.error:.2%}: what the best score says, less how often it is right"
    return (Paragraph(said), Table(columns, rows))
