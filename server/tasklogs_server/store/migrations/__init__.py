"""The schema, as Alembic migrations in SQL. Only `tasklogs_server.store.migrate` runs them."""
