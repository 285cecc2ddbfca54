"""Ground floor of the platform: settings, errors, digests, storage, package format, registry client."""
