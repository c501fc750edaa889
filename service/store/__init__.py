"""The database: the only room that writes SQL; its functions take a transaction or a connection."""
