"""What several nodes must share one day, behind one small interface."""
