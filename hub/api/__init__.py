"""The HTTP API, version 1: one route table from which routing, validation and the OpenAPI text come."""
