"""JSON Web Tokens of an identity provider, accepted beside keys.

tokens   the identity of a token's bearer, once its signature has been verified
jwks     the public keys that verify tokens
"""
