"""The console: one page for the operator and for whoever is writing an agent."""
