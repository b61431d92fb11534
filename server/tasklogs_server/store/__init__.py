"""Every SQL query and the migrations.
Here asyncpg's errors become domain errors; no protobuf services, no gRPC."""
