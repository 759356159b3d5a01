"""snas inside other tools."""
