"""`python -m hub.stack`: the servers alone, without any process of the hub."""

import typer

from hub.stack.commands import add_stack_commands
from hub.stack.plan import NoHub

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The servers of the local stack, alone.")
add_stack_commands(app, lambda _: NoHub())

if __name__ == "__main__":
    app()
