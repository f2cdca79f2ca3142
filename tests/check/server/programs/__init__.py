"""Programs that the tests run: servers that do as they are told, in three languages."""
