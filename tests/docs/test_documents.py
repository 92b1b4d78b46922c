"""What people read is true: settings, commands and links exist."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

from hub.cli import app
from hub.settings import Settings

SETTINGS_MODULES = (
    "hub.settings",
    "hub.zeebe.worker",
    "connectors.channel.settings",
    "connectors.ams.settings",
    "connectors.stp.settings",
    "connectors.disbursement.settings",
    "ledger.settings",
    "exporters.settings",
)


def every_variable() -> set[str]:
    for module in SETTINGS_MODULES:
        import_module(module)
    found = [cls for cls in Settings.__subclasses__() if cls.__module__ in SETTINGS_MODULES]
    return {f"{cls.model_config.get('env_prefix', '')}{name.upper()}" for cls in found for name in cls.model_fields}


def test_every_setting_is_documented():
    assert every_variable() - set(re.findall(r"`(PAYHUB_[A-Z_]+)`", Path("docs/settings.md").read_text())) == set()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/seed.md", "docs/settings.md", "docs/views.md", "bpmn/README.md"]
)
def test_every_link_leads_somewhere(page: str):
    for target in re.findall(r"\]\(([^)#:]+)\)", Path(page).read_text()):
        assert (Path(page).parent / target).exists(), target


def test_every_command_of_the_readme_exists():
    words = re.findall(r"payhub ((?:[a-z]+ ?){1,2})", Path("README.md").read_text())
    known = get_command(app).commands  # type: ignore[attr-defined]
    groups = {name for name, command in known.items() if hasattr(command, "commands")}
    stack = {"up", "down", "status", "doctor"}
    for first, *rest in (word.split() for word in words):
        assert first in set(known) | stack, first
        if first in groups and rest:
            assert rest[0] in known[first].commands, f"{first} {rest[0]}"
