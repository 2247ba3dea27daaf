"""Doors and composition: app, settings, auth, agent links, routing, store."""
