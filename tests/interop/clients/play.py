"""Plays steps with a client: a request on standard input, one JSON line on standard output.

A driver gives `main` an asynchronous context manager that opens a session and yields two functions: one lists the tools'
names, one calls a tool and gives what the client's user, or its model, gets to see.
"""

import asyncio
import json
import sys
import warnings
from contextlib import AsyncExitStack

warnings.simplefilter("ignore")
BOUND = 60


async def play(opened, request):
    steps = []
    stack = AsyncExitStack()
    listed, called = await stack.enter_async_context(opened(request))
    for step in request["steps"]:
        try:
            async with asyncio.timeout(BOUND):
                match step["do"]:
                    case "list":
                        outcome = sorted(await listed())
                    case "call":
                        outcome = await called(step["name"], step["arguments"])
                    case "reconnect":
                        await stack.aclose()
                        listed, called = await stack.enter_async_context(opened(request))
                        outcome = "connected"
            steps.append({"ok": outcome})
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - what went wrong is the answer
            steps.append({"error": told(error)})
    try:
        async with asyncio.timeout(10):
            await stack.aclose()
    except BaseException as error:  # noqa: BLE001 - what went wrong is the answer
        steps.append({"close": told(error)})
    return {"steps": steps}


def told(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def text(result):
    """What a result of a call says, whatever the SDK calls its parts."""
    failed = getattr(result, "isError", getattr(result, "is_error", False))
    words = " ".join(getattr(block, "text", block.__class__.__name__) for block in result.content)
    return f"error result: {words}" if failed else words


def main(opened):
    request = json.load(sys.stdin)
    kept, sys.stdout = sys.stdout, sys.stderr  # some clients print
    try:
        outcome = asyncio.run(play(opened, request))
    except BaseException as error:  # noqa: BLE001 - what went wrong is the answer
        outcome = {"failed": told(error), "steps": []}
    print(json.dumps(outcome), file=kept, flush=True)
