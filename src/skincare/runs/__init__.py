"""The record of runs: manifests with content hashes, their comparison and verification, backup and pruning."""
