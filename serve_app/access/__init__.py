"""Who may ask, and how much.

policies   what a key or a group may do
caller     the caller of one request, with the policy in force
"""
