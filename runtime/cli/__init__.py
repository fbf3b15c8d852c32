"""What all ``uflow-…`` commands share: options, configuration files, logs, signals, exit codes."""
