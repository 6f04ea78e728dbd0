"""Stand-ins for what a test machine cannot reach: real HTTP servers that speak the real wire formats."""
