"""A check as JUnit XML, which CI systems show as tests: one suite a server, one case a scenario."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from xml.etree import ElementTree

from .text import worth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .verdict import Target, Verdict

_Outcome: TypeAlias = Literal["failure", "error", "skipped"]

# What XML 1.0 allows (2.2); a body from outside may hold anything.
_NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(targets: Sequence[Target]) -> str:
    """Return the verdicts as a document."""
    root = ElementTree.Element("testsuites", name="graceful-asgi check")
    for target in targets:
        _suite(root, target.command.name, target.verdict)
    return _document(root)


def junit_of_error(names: Sequence[str], message: str) -> str:
    """Return a document that says why there is no verdict."""
    root = ElementTree.Element("testsuites", name="graceful-asgi check")
    suite = ElementTree.SubElement(root, "testsuite", name=_clean(names[0]))
    case = ElementTree.SubElement(suite, "testcase", name="check", classname=_clean(names[0]))
    _say(case, "error", message)
    _count(suite)
    return _document(root)


def _suite(root: ElementTree.Element, name: str, verdict: Verdict) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=_clean(name))

    def case(what: str, outcome: _Outcome | None, text: str, seconds: float = 0.0) -> None:
        fields = {"name": what, "classname": _clean(name), "time": f"{seconds:.3f}"}
        found = ElementTree.SubElement(suite, "testcase", fields)
        if outcome is not None:
            _say(found, outcome, text)

    for what, faults, seconds in (
        ("all requests", verdict.request_faults, 0.0),
        ("exit", verdict.exit_faults, verdict.seconds_to_exit),
    ):
        case(what, "failure" if faults else None, "; ".join(faults), seconds)
    outcomes: dict[str, _Outcome] = {"failed": "failure", "untested": "error", "not run": "skipped"}
    for found in verdict.findings:
        case(found.scenario, outcomes.get(found.result), found.text, found.seconds or 0.0)
    output = [f"{what}: {text}" for what, text in verdict.expected.items()]
    output += [*verdict.notes, worth(verdict)]
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(output))
    _count(suite)


def _say(case: ElementTree.Element, outcome: _Outcome, text: str) -> None:
    found = ElementTree.SubElement(case, outcome, message=_clean(text.partition("\n")[0]))
    if outcome != "skipped":
        found.text = _clean(text)


def _count(suite: ElementTree.Element) -> None:
    suite.set("tests", str(len(suite.findall("testcase"))))
    for name, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{outcome}"))))
    seconds = sum(float(case.get("time", "0")) for case in suite.findall("testcase"))
    suite.set("time", f"{seconds:.3f}")


def _document(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)
