"""What every ``uflow-…`` command shares: its parser, its signals, the process it runs in."""
