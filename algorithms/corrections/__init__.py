"""Detached weights and masks on the policy terms, one file each."""
