"""A small MCP server on standard input and output, for the transport's tests: does what it is told, also the wrong thing."""

import json
import os
import sys
import threading
import time

LOCK = threading.Lock()


def say(message):
    with LOCK:
        sys.stdout.write(message if isinstance(message, str) else json.dumps(message))
        sys.stdout.write("\n")
        sys.stdout.flush()


def answer(message):
    method, params = message.get("method"), message.get("params") or {}
    identifier = message.get("id")
    arguments = params.get("arguments") or {}
    if method == "initialize":
        time.sleep(1 if "--slow" in sys.argv else 0)
        result = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "child", "version": "1"},
            "asked": params,
        }
    elif method == "tools/call":
        time.sleep(arguments.get("sleep", 0))
        token = (params.get("_meta") or {}).get("progressToken")
        for step in range(arguments.get("progress", 0)):
            say(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": step},
                }
            )
        if arguments.get("die"):
            os._exit(3)
        if arguments.get("noise"):
            say("this is not JSON")
            sys.stderr.write("complaint\npassword=hunter2-hunter2\n")
            sys.stderr.flush()
        if arguments.get("ask"):
            say({"jsonrpc": "2.0", "id": "srv-1", "method": "sampling/createMessage", "params": {}})
        if arguments.get("changed"):
            say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        if arguments.get("log"):
            say(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/message",
                    "params": {"level": "info", "data": "secret of another"},
                }
            )
        result = {
            "pid": os.getpid(),
            "echo": arguments.get("echo"),
            "token": token,
            "env": dict(os.environ),
            "raw": message["_raw"],
        }
    else:
        result = {"method": method, "received": RECEIVED[-20:]}
    say({"jsonrpc": "2.0", "id": identifier, "result": result})


RECEIVED = []
if "--fail" in sys.argv:
    sys.stderr.write("cannot find my database\n")
    sys.exit(1)
if "--mute" in sys.argv:
    time.sleep(60)
for line in sys.stdin:
    message = json.loads(line)
    message["_raw"] = line.rstrip("\n")
    if "method" in message and "id" in message:
        threading.Thread(target=answer, args=(message,), daemon=True).start()
    RECEIVED.append(line.rstrip("\n"))
