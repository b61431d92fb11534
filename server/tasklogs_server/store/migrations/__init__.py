"""The schema, as Alembic migrations in SQL. Only `migrate` of the store's room runs them."""
