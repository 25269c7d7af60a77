"""Access: callers, their rights and limits, and their use.

admin_key       the key with which a command asks a running service
authenticator   the caller of a request, by the credentials that it presents
policies        the rights of a key or a group
caller          the caller of one request, with the policy in force
keys            the file of keys, and the commands that edit it
tokens          JSON Web Tokens of an identity provider
limits          the limits of a caller
usage           totals of use
repeater        a thread that repeats one step
regular_file    reads a small regular file and nothing else
"""
