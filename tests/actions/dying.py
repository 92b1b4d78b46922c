"""One step of an action, in a process of its own that may die half-way: `python dying.py STEP URL PAYMENT [ACTION]`."""

from __future__ import annotations

import asyncio
import sys

from conftest import CARLOS, TENANT, Gateway, Shown, linked, open_desk

from connectors.channel.store import ChannelStore
from connectors.channel.worker import ChannelWorker
from operations_app.actions.model import Kind


async def main(step: str, url: str, payment: str, action: str = "") -> None:
    shown, gateway = Shown(), Gateway()
    shown.stuck(payment=payment)
    async with open_desk(url, shown, gateway) as desk:
        if step == "ask":
            await desk.ask(payment, Kind.RETRY, key="once")
        elif step == "approve":
            await desk.actions.approve(CARLOS, action)
        elif step == "publish":
            await desk.relay.publish_due()
        elif step == "carry-out":
            await desk.carrying.carry_out(TENANT, action)
        elif step == "accept":
            await ChannelWorker(ChannelStore(desk.database), lambda: None).accept_linked_payment(linked(payment))


asyncio.run(main(*sys.argv[1:]))
