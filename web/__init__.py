"""The pages that people see: dashboard, preferences. Uses `hub`, never `workers`."""
