"""From a tensor that a tap has seen to chunks on their way to the store."""
