"""The official conformance suite, run through the gateway: `python -m tests.conformance`."""
