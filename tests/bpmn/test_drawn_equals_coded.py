"""Our drawings and our connectors agree, and the README of the drawings says the same as both."""

from __future__ import annotations

import re
from pathlib import Path

import bpmn
from connectors import registry
from hub.drawn import check
from hub.jobs import handlers_of
from hub.operator import OutcomeDecided

README = Path(bpmn.__file__).with_name("README.md")


def table(heading: str) -> list[tuple[str, ...]]:
    """The rows of the first table under a heading."""
    section = README.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|")) for line in section.splitlines() if line[:1] == "|"
    ]
    return rows[2:]


def test_what_is_drawn_equals_what_is_coded():
    found = check(bpmn.processes(), bpmn.decisions(), registry.every(), (OutcomeDecided,))
    assert [str(finding) for finding in found] == []


def test_the_readme_lists_every_drawing():
    named = set(re.findall(r"^\| \[([a-z.-]+)\]", README.read_text(), re.MULTILINE))
    assert named == set(bpmn.resources())


def test_the_readme_lists_every_job_as_it_is_drawn():
    drawn = {(p.id, task.element, task.job_type, task.retries) for p in bpmn.processes() for task in p.jobs}
    assert {row[:4] for row in table("From process to handler")} == drawn


def test_the_readme_names_the_handler_of_every_job():
    handlers = {
        (handler.job.job_type, handler.run.__qualname__)
        for connector in registry.every()
        for worker in connector.worker_classes
        for handler in handlers_of([object.__new__(worker)])
    }
    assert {(job, handler) for *_, job, _, handler in table("From process to handler")} == handlers


def test_the_readme_lists_every_message_and_where_it_arrives():
    drawn: dict[str, list[str]] = {}
    for process in bpmn.processes():
        for catch in process.messages:
            drawn.setdefault(catch.message, []).append(f"{process.id}: {catch.element}")
    written = {message: sorted(places.split("; ")) for message, places, _ in table("Messages")}
    assert written == {message: sorted(places) for message, places in drawn.items()}
