"""The HTTP edge: what requests may ask for, promises as JSON, errors as RFC 9457 problems."""
