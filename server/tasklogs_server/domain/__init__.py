"""The rules of tasks: enums, facts, status, references and errors. All of them are pure.

Nothing here awaits, reads a clock or does I/O. Nothing imports gRPC, Postgres, protobuf or another
package of the server.
"""
