"""From a composed configuration to a frozen session."""
