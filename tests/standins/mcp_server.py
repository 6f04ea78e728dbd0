"""A stand-in of an MCP server that sends WhatsApp messages: the official SDK, no WhatsApp.

It writes each call of its tool to a file, a JSON object a line, and behaves as it is told:

    ok       takes the message
    error    the tool answers an error
    slow     notes the call, and answers after an hour
    late     never says anything, not even hello
    dies     notes the call, and dies
    deaf     takes the message, and does not end when it is told to; its child neither

    python mcp_server.py --calls FILE [--behave ok] [--http PORT [--token TOKEN]]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=Path, required=True)
    parser.add_argument("--behave", default="ok")
    parser.add_argument("--http", type=int, default=0)
    parser.add_argument("--token", default="")
    options = parser.parse_args()
    behave: str = options.behave

    def note(**what: Any) -> None:
        with options.calls.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")

    if behave == "late":
        note(pid=os.getpid())
        time.sleep(3600)
    if behave == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # In a session of its own: not ended with our group.
        child = subprocess.Popen(["sleep", "3600"], start_new_session=True, stdout=subprocess.DEVNULL)
        note(pid=os.getpid(), child=child.pid)

    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    server = MCPServer("whatsapp-stand-in", log_level="ERROR")

    @server.tool()
    def send_message(recipient: str, message: str) -> str:
        """Send a WhatsApp message."""
        note(
            recipient=recipient,
            message=message,
            pid=os.getpid(),
            environment=sorted(os.environ),
            memory=resource.getrlimit(resource.RLIMIT_DATA)[0],
        )
        if behave == "error":
            raise ToolError("not logged in: scan the code of +491700000000")
        if behave == "slow":
            time.sleep(3600)
        if behave == "dies":
            os._exit(1)
        return "Message sent"

    @server.tool()
    def list_chats() -> str:
        """Not what alerts are sent with."""
        return "[]"

    if not options.http:
        server.run()
        if behave == "deaf":
            time.sleep(3600)
        return
    import uvicorn
    from starlette.responses import PlainTextResponse

    app = server.streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        wanted = f"Bearer {options.token}".encode()
        if scope["type"] == "http" and options.token and headers.get(b"authorization") != wanted:
            await PlainTextResponse("who are you?", 401)(scope, receive, send)
            return
        await app(scope, receive, send)

    uvicorn.run(guarded, host="127.0.0.1", port=options.http, log_level="error")


if __name__ == "__main__":
    sys.exit(main())
