"""Remedies as commands: where a report would hand out Python, the command line hands out what can be typed there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from closedform.report.document import Document, Section

__all__ = ["as_options", "command_for", "with_commands"]

_OPTIMIZER = re.compile(r"(?:torch\.)?optim\.(SGD|Adam|LBFGS)\((?P<arguments>[^\n]*)\)")
_NUMBER = r"([-+0-9.eE]+)"
#: What notes and errors tell a caller in Python to do, and the same on a command line.
_OPTIONS = (
    ("kernel=True", "--kernel"),
    ("(bias=True, or a layer with a bias)", "(--bias)"),
    (
        "pass one column for each (torch.nn.functional.one_hot), or criterion=torch.nn.CrossEntropyLoss(), or call "
        "cf.probe, which counts the right answers as well (closedform probe on a command line)",
        "--criterion cross-entropy fits them, and closedform probe counts the right answers as well",
    ),
    ("pass Y.long() if they are labels", "save them as integers if they are labels"),
    ("'classification', 'regression' or None to find out", "classification or regression, or left out to find out"),
    ("None, 'balanced' or a mapping from classes to weights", "balanced, or left out"),
)
#: An argument that an error begins with.
_FIRST = re.compile(r"^(digits|budget|l2|sample_weight|class_weight)(?= (?:is|holds|with) )")
#: Options that have another name than the argument.
_RENAMED = {"sample_weight": "--weight", "class_weight": "--class-weight"}
#: Arguments of the functions that are options of the commands by the same name, and their value, if one follows.
_ARGUMENT = re.compile(
    r"(?<![\w.'\"])(?P<name>criterion|digits|l2|kernel|bias|budget|steps|seed|batch_size|test_features|test_labels|task|"
    r"test_size|class_weight)=(?P<value>'[^']*'|\w+\(\)|[-+\w.]*[\w])?"
)


def as_options(text: str) -> str:
    """Return what is said of a fit with its advice and its arguments as options.

    Example:
        >>> as_options("with one the loss would be about 2 (bias=True, or a layer with a bias)")
        'with one the loss would be about 2 (--bias)'
        >>> as_options("digits= is for squared error; leave it out with criterion=L1Loss().")
        '--digits is for squared error; leave it out with --criterion.'
        >>> as_options("criterion='x' is not known")
        '--criterion x is not known'
    """
    for call, option in _OPTIONS:
        text = text.replace(call, option)
    text = _FIRST.sub(lambda match: _RENAMED.get(match[1], f"--{match[1]}"), text)
    return _ARGUMENT.sub(_as_option, text)


def _as_option(match: re.Match[str]) -> str:
    option, value = f"--{match['name'].replace('_', '-')}", match["value"]
    if value is None or value.endswith("()") or value == "True":
        return option
    # An empty name, or one with blanks, keeps its quotes, as it would have to be typed.
    return f"{option} {shlex.quote(value.strip(chr(39)))}"


def command_for(code: str, file: str, options: Sequence[str]) -> str | None:
    """Return the command that does what a remedy in Python does; None where there is none.

    Args:
        code: The remedy.
        file: The file that the command read.
        options: The options that name its tables and the problem (``--bias``).

    Example:
        >>> command_for("torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)", "d.h5", [])
        'closedform diagnose d.h5 --optimizer sgd --lr 0.1 --momentum 0.9'
    """
    if code.startswith("closedform "):
        return code
    words = [*file.split("\n"), *options]
    match = _OPTIMIZER.search(code)
    if match is None:
        return None
    settings = ["--optimizer", match[1].lower()]
    for name in ("lr", "momentum"):
        if value := re.search(rf"\b{name}={_NUMBER}", match["arguments"]):
            settings += [f"--{name}", value[1]]
    if "nesterov=True" in match["arguments"]:
        settings.append("--nesterov")
    return shlex.join(["closedform", "diagnose", *words, *settings])


def with_commands(document: Document, command: Callable[[str], str | None]) -> Document:
    """Return a report in which every remedy that has a command is that command.

    Args:
        document: The report.
        command: Returns the command for a remedy, or None to leave it.
    """

    def turned(section: Section) -> Section:
        return replace(section, blocks=tuple(_turned(block, command) for block in section.blocks))

    return replace(document, lead=tuple(map(turned, document.lead)), sections=tuple(map(turned, document.sections)))


def _turned(block: Any, command: Callable[[str], str | None]) -> Any:
    from closedform.report.document import Code, Entry

    if isinstance(block, Code) and (line := command(block.text)) is not None:
        return replace(block, text=line)
    if isinstance(block, Entry) and (line := command(block.code)) is not None:
        return replace(block, code=line)
    return block
