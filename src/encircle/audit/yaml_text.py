"""YAML as people mean it: no key is dropped, and a value is read as the type that it looks like."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, final

import yaml
from yaml.nodes import MappingNode, ScalarNode

from ..core import InputError

_MOST_ENTRIES = 1_000_000

_BOOL, _INT, _FLOAT, _TEXT, _MERGE, _VALUE = (
    f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "str", "merge", "value")
)
_AMBIGUOUS = "!ambiguous-number"
_DIGITS = "0123456789"
_EXPONENT = "(?:[eE][-+]?[0-9]+)"

_PLAIN: tuple[tuple[str, str, str], ...] = (
    (_BOOL, "true|True|TRUE|false|False|FALSE", "tTfF"),
    (
        _AMBIGUOUS,  # octal, and of base 60: YAML 1.1 has these numbers, YAML 1.2 has not
        r"[-+]?0[0-7_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
        f"-+{_DIGITS}",
    ),
    (_INT, "[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", f"-+{_DIGITS}"),
    (
        _FLOAT,
        rf"[-+]?(?:[0-9][0-9_]*\.[0-9_]*{_EXPONENT}?|[0-9][0-9_]*{_EXPONENT}|\.[0-9][0-9_]*{_EXPONENT}?)"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        f"-+.{_DIGITS}",
    ),
)
"""Types of texts without quotes: tag, pattern, first letters; the first match counts.

Null, dates and merge keys are those of YAML 1.1.
"""

_UNREAD = ((_BOOL, "y|Y|n|N", "yYnN"),)
"""Booleans of YAML 1.1 that PyYAML, unlike other readers, reads as texts."""

_LINE_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Characters that change or vanish when read back, unless escaped."""


@final
class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in {_BOOL, _INT, _FLOAT, _VALUE}]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, origin: str) -> None:
        super().__init__(text)
        self.origin = origin

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        # Checked before dictionaries are made: after that, merged keys stand beside a mapping's own keys.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == _MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                where = f"in line {line}" if lines[name] == line else f"in lines {lines[name]} and {line}"
                raise InputError(f"{self.origin} has the key {key.value!r} twice, {where}; drop one of them.")
            lines[name] = line
        return node

    def refuse_number(self, node: ScalarNode) -> Any:
        text = str(self.construct_scalar(node))
        digits = text.replace("_", "").lstrip("+-")
        if ":" in digits:
            *places, last = digits.split(":")
            number = float(last) if "." in last else int(last)
            number += sum(int(digits) * 60**power for power, digits in enumerate(reversed(places), start=1))
        else:
            number = int(digits)
        raise InputError(
            f"{self.origin} has {text} in line {node.start_mark.line + 1}, which not every reader of YAML takes for the same; "
            f'write {-number if text.startswith("-") else number} or "{text}".'
        )


@final
class _Dumper(yaml.SafeDumper):
    def represent_text(self, text: str) -> ScalarNode:
        return self.represent_scalar(_TEXT, text, style='"' if _LINE_BREAKS.search(text) else None)


for _tag, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
for _tag, _pattern, _first in _PLAIN + _UNREAD:  # texts that either reads as another type get quotes
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.add_constructor(_AMBIGUOUS, _Loader.refuse_number)
_Dumper.add_representer(str, _Dumper.represent_text)


def load(text: str, origin: str) -> Any:
    """The value of a YAML text: `1e-2` and `.5e1` are numbers, only `true` and `false` are booleans.

    Args:
        text: one document.
        origin: its name in errors.

    Raises:
        InputError: not YAML, a key twice in one mapping, a number that YAML 1.1 and 1.2 read differently, or too many aliases.
    """
    try:
        loader = _Loader(text, origin)
        try:
            content = loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{origin} is not YAML: {' '.join(str(error).split())}") from None
    if _entries(content, {}) > _MOST_ENTRIES:
        raise InputError(
            f"{origin} has more than {_MOST_ENTRIES} entries once its aliases are written out; give another file."
        )
    return content


def read_text(path: Path) -> str:
    """The text of a file named by the user.

    Raises:
        InputError: it cannot be read as UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as UTF-8 text; give a YAML file.") from None


def dump(value: Any, *, flow: bool = False) -> str:
    """A value as YAML that `load` and readers of YAML 1.1 take for the same value.

    Args:
        value: of texts, numbers, booleans, null, lists and dictionaries.
        flow: for people: braces instead of lines, keys sorted, no line break at the end.
    """
    if flow:
        text = yaml.dump(
            value, Dumper=_Dumper, default_flow_style=True, sort_keys=True, allow_unicode=True, width=math.inf
        )
        return text.removesuffix("...\n").strip()
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _entries(content: Any, known: dict[int, float]) -> float:
    """Number of entries if every alias were written out; infinite for a value that contains itself."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        known[id(content)] = math.inf  # while it is counted: an alias met now lies inside it
        inner = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_entries(item, known) for item in inner)
    return known[id(content)]
