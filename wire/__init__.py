"""The SDK protocol as typed messages and configuration shapes. Knows nothing of any other floor."""
