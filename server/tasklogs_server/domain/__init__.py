"""The rules of tasks: enums, facts, status, references and errors. All of it is pure.

Nothing here awaits, reads a clock or does I/O, or imports gRPC, Postgres, protobuf or another
package of the server.
"""
