"""Shared by all ``uflow-…`` commands: options, configuration files, logs, signals, exit codes."""
