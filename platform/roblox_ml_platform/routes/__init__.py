"""The REST API, one module per resource: thin functions that open a transaction and call the module that knows."""
