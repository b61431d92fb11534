"""The gRPC services: decode the request, call a package below, encode the response.

No SQL and no rule about tasks or logs. What happens around a handler is in `middleware`.
"""
