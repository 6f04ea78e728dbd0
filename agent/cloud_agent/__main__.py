"""`python -m cloud_agent` is the same as the installed command `cloud-agent`."""

import sys

from cloud_agent.cli import main

sys.exit(main())
