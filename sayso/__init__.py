"""The ground floor: dataset root, tables, object storage, stage engine, errors, configuration."""
