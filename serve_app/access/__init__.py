"""Who may ask, how much, and who used what.

authenticator   who a request is from, by the credentials that it presents
policies        what a key or a group may do
caller          the caller of one request, with the policy in force
keys            the file of keys, and the commands that edit it
tokens          JSON Web Tokens of an identity provider
limits          how much a caller may use
usage           who used what
repeater        a thread that repeats one step
regular_file    reads a small regular file and nothing else
"""
