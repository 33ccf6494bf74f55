"""The verdicts of a study as JUnit XML for CI systems: a cell is a test."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET  # only written here, never parsed

from ..storage import write_bytes

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, title: str, cells: Sequence[Mapping[str, Any]]) -> None:
    """Write one test per cell: FAIL is a failure, ERROR an error, WARN a skipped test, PASS a success.

    Args:
        path: the XML file.
        title: of the study.
        cells: as `study.json` holds them.

    Raises:
        StorageError: it cannot be written.
    """
    counts = Counter(cell["verdict"] for cell in cells)
    numbers = {"tests": len(cells), "failures": counts["FAIL"], "errors": counts["ERROR"], "skipped": counts["WARN"]}
    attributes = {"name": _clean(title), **{name: str(number) for name, number in numbers.items()}}
    suites = ET.Element("testsuites", attributes)
    suite = ET.SubElement(suites, "testsuite", attributes)
    for cell in cells:
        test = ET.SubElement(suite, "testcase", {"classname": _clean(title), "name": _clean(cell["title"])})
        sentence = _clean(cell["sentence"])
        if cell["verdict"] in _ELEMENTS:
            ET.SubElement(test, _ELEMENTS[cell["verdict"]], {"message": sentence})
        else:
            ET.SubElement(test, "system-out").text = sentence
    ET.indent(suites)
    write_bytes(path, ET.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n")


_ELEMENTS = {"FAIL": "failure", "ERROR": "error", "WARN": "skipped"}


def _clean(text: str) -> str:
    """The text without characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
