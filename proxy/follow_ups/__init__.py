"""What comes after a call on another exchange: its cancel, its task, its resumed answer."""
