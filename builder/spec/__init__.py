"""The spec: what a person writes in ``cluster.yaml``, checked whole and turned into one frozen value."""
