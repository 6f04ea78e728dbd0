"""Telling the owner what waits and what has stopped: on WhatsApp by an MCP server, and on whatever Apprise knows.

    settings   what may be configured, and what may not
    facts      what there is to tell: causes, read from the vault, the beats and the alerts
    ledger     pure: which cause is to be told where, and when; what was told
    text       pure: the words, made harmless
    channels   sending; heavy, imported only by the process that sends
    teller     what the loops call, and the process that sends

The loops look after each other: each looks at all causes after its step, and starts the sending process when one is
due. The ledger, a file under a lock, sees to it that one tells.
"""
