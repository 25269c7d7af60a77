"""JSON Web Tokens of an identity provider, accepted beside keys.

tokens   who a token says its bearer is, once its signature has been verified
jwks     the public keys that verify tokens
"""
