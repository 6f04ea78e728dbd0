"""How well the agent judges, screens and drafts, measured on labelled mail. `make eval`; `python -m evals --help`."""
