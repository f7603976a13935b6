"""The nine services of the gateway, one group each. They know only flows' public names, never each other."""
