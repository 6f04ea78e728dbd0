"""Containers that stand for what the project talks to: the VM, and GitHub with the APIs around it."""
