"""A hub of one small process, to run real stacks with: `python example_hub.py up --data-dir DIR`."""

from __future__ import annotations

import http.server
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import typer

from hub.stack.commands import add_stack_commands
from hub.stack.plan import HubPlan, HubProcess, Preparation
from hub.stack.state import Profile, StackState

BREAKS = "EXAMPLE_BREAKS"
"""Set to `preparation` or `process` to see that fail."""


class ExampleHub:
    """A process that greets, and a table that counts how often the stack was started."""

    def ports(self, profile: Profile) -> Mapping[str, int]:
        return {"greeter": 8390}

    def plan(self, state: StackState) -> HubPlan:
        url = state.address("postgres").replace("+psycopg", "")

        async def count_start() -> None:
            if os.environ.get(BREAKS) == "preparation":
                raise RuntimeError("no such column: amount")
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute("create table if not exists starts (at timestamptz default now())")
                await connection.execute("insert into starts default values")

        @asynccontextmanager
        async def issuer() -> AsyncIterator[None]:
            running = Path(os.environ.get("EXAMPLE_SERVICE_FILE", os.devnull))
            running.write_text("open")
            yield
            running.write_text("closed")

        port = state.ports["greeter"]
        command = (sys.executable, str(Path(__file__).resolve()), "greet", str(port))
        return HubPlan(
            processes=(HubProcess("greeter", command, port, {"GREETING": "hello"}),),
            preparations=(Preparation("count the start", count_start),),
            services=(issuer,),
            environment={"PAYHUB_EXAMPLE_SECRET": "shared"},
            base_urls={"greeter": f"http://127.0.0.1:{port}"},
            version="1.2.3",
        )


class Greeter(http.server.BaseHTTPRequestHandler):
    """Ready when asked; otherwise says what it was given."""

    def do_GET(self) -> None:
        names = ("GREETING", "PAYHUB_EXAMPLE_SECRET", "PAYHUB_ZEEBE_ADDRESS", "PAYHUB_DATABASE_URL")
        body = "\n".join(os.environ[name] for name in names).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


app = typer.Typer()
add_stack_commands(app, lambda _: ExampleHub())


@app.command()
def greet(port: int) -> None:
    if os.environ.get(BREAKS) == "process":
        sys.exit("no greeting today")
    http.server.HTTPServer(("127.0.0.1", port), Greeter).serve_forever()


if __name__ == "__main__":
    app()
