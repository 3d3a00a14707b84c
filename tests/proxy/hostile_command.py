"""An MCP server on standard input and output that does whatever its caller writes: the worst command there is."""

import json
import sys
import traceback

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "tools/call":
        place = {"found": None}
        try:
            exec(message["params"]["arguments"]["do"], place)
        except Exception:  # noqa: BLE001 - told, whatever it is
            place["found"] = traceback.format_exc().strip().splitlines()[-1]
        result = {"content": [{"type": "text", "text": json.dumps(place["found"])}]}
    elif message["method"] == "tools/list":
        result = {"tools": [{"name": "python", "inputSchema": {"type": "object"}}]}
    else:
        result = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "h", "version": "1"},
        }
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
    sys.stdout.flush()
